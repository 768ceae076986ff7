//! What `cota dev` keeps beside the stores' data: the secret, and `dev.json` while the service runs.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::CliError;

/// The folder of one development service.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes it if need be, and leaves it out of version control.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        fs::create_dir_all(path).map_err(failed(path))?;
        let ignore = path.join(".gitignore");
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(failed(&ignore))?;
        }
        let folder = Self { path: path.to_path_buf() };
        // Left by a run that was killed: it announces nothing that is there.
        folder.forget();
        Ok(folder)
    }

    /// What JWTs are signed with; made once.
    pub fn secret(&self) -> Result<String, CliError> {
        self.kept("jwt-secret", || {
            let bytes: [u8; 32] = rand::random();
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }

    /// A text that is made once and found again.
    pub fn kept(&self, name: &str, make: impl FnOnce() -> String) -> Result<String, CliError> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            _ => {
                let text = make();
                self.write(name, &text)?;
                Ok(text)
            }
        }
    }

    /// Writes `dev.json`, whole or not at all, readable by its owner only: it holds JWTs.
    pub fn announce(&self, facts: &impl Serialize) -> Result<(), CliError> {
        self.write("dev.json", &serde_json::to_string_pretty(facts)?)
    }

    /// Removes `dev.json`: the service it speaks of is gone.
    pub fn forget(&self) {
        // Not there is as good.
        let _ = fs::remove_file(self.path.join("dev.json"));
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CliError> {
        let (draft, path) = (self.path.join(format!("{name}.new")), self.path.join(name));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(failed(&draft))?;
        file.write_all(text.as_bytes()).map_err(failed(&draft))?;
        fs::rename(&draft, &path).map_err(failed(&path))
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    let path = path.display().to_string();
    move |error| CliError::File(path, error)
}
