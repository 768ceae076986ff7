//! A Postgres data folder: where it is, whose it is, and how it comes to be.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    DevstackError, Signal,
    process::{self, Process},
};

/// The system user that runs Postgres for root.
pub(super) const SYSTEM_USER: &str = "postgres";
/// The database's superuser, the only role in it.
pub(super) const ROLE: &str = "cota";
/// Holds the path of the data folder when that had to go elsewhere.
const LOCATION_FILE: &str = "location";
const INITDB_PATIENCE: Duration = Duration::from_secs(120);

/// What a start of Postgres needs to know about its data.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) data: PathBuf,
    pub(super) bin_dir: PathBuf,
    /// Whom to run as, if not ourselves.
    pub(super) user: Option<&'static str>,
}

/// Finds the data of `dir`, or makes it. With a password every connection needs it; without, whoever reaches the
/// loopback port gets in.
pub(super) async fn open(
    dir: &Path,
    bin_dir: Option<&Path>,
    password: Option<&str>,
) -> Result<Cluster, DevstackError> {
    fs::create_dir_all(dir).map_err(DevstackError::io("making", dir))?;
    let user = rustix::process::geteuid().is_root().then_some(SYSTEM_USER);
    let owner = user.map(owner_ids).transpose()?;
    let data = place(dir, user, owner)?;
    let version = fs::read_to_string(data.join("PG_VERSION")).ok();
    let bin_dir = match bin_dir {
        Some(bin_dir) => bin_dir.to_owned(),
        None => find_binaries(version.as_deref().map(str::trim))?,
    };
    let cluster = Cluster { data, bin_dir, user };
    if version.is_none() {
        cluster.init(dir, password, owner).await?;
    }
    Ok(cluster)
}

impl Cluster {
    /// A command of Postgres, as the right user; the kernel sends it `signal_name` if we die.
    pub(super) fn command(&self, program: &str, signal_name: &str) -> Command {
        let mut command = process::command(&self.bin_dir.join(program), signal_name, self.user);
        command.arg("-D").arg(&self.data);
        command
    }

    /// Makes the data folder. An earlier attempt that was cut short is cleared away first: without `PG_VERSION`,
    /// which `initdb` writes before anything of worth, there is nothing to lose.
    async fn init(
        &self,
        dir: &Path,
        password: Option<&str>,
        owner: Option<(u32, u32)>,
    ) -> Result<(), DevstackError> {
        let mut command = self.command("initdb", "TERM");
        command.args(["--username", ROLE, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
        let password_file = self.data.with_extension("password");
        match password {
            None => {
                command.arg("--auth=trust");
            }
            Some(password) => {
                write_private(&password_file, password, owner)?;
                command.arg("--auth=scram-sha-256").arg("--pwfile").arg(&password_file);
            }
        }
        let process = Process::spawn("initdb", command, &dir.join("initdb.log"), Signal::KILL)?;
        let ended = process.finished(INITDB_PATIENCE).await;
        if password.is_some() {
            fs::remove_file(&password_file).map_err(DevstackError::io("removing", &password_file))?;
        }
        ended
    }
}

/// Where the data is, or shall be: `dir/data`; or, when the system user cannot get there (the checkout is in root's
/// own 0700 home), a folder under `/var/lib`, of which `dir/location` tells the next start.
fn place(dir: &Path, user: Option<&str>, owner: Option<(u32, u32)>) -> Result<PathBuf, DevstackError> {
    let location = dir.join(LOCATION_FILE);
    if let Ok(path) = fs::read_to_string(&location) {
        return Ok(path.into());
    }
    let data = std::path::absolute(dir).map_err(DevstackError::io("resolving", dir))?.join("data");
    make_owned(&data, owner)?;
    if user.is_none_or(|user| can_enter(&data, user)) {
        return Ok(data);
    }
    fs::remove_dir(&data).map_err(DevstackError::io("removing", &data))?;
    let parent = PathBuf::from(format!("/var/lib/cota-{}", uuid::Uuid::new_v4().simple()));
    let data = parent.join("data");
    make_owned(&parent, owner)?;
    make_owned(&data, owner)?;
    fs::write(&location, data.display().to_string()).map_err(DevstackError::io("writing", &location))?;
    Ok(data)
}

fn make_owned(path: &Path, owner: Option<(u32, u32)>) -> Result<(), DevstackError> {
    fs::create_dir_all(path).map_err(DevstackError::io("making", path))?;
    if let Some((uid, gid)) = owner {
        chown(path, Some(uid), Some(gid)).map_err(DevstackError::io("handing over", path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(DevstackError::io("closing", path))
}

fn write_private(path: &Path, text: &str, owner: Option<(u32, u32)>) -> Result<(), DevstackError> {
    fs::write(path, "").map_err(DevstackError::io("writing", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(DevstackError::io("closing", path))?;
    if let Some((uid, gid)) = owner {
        chown(path, Some(uid), Some(gid)).map_err(DevstackError::io("handing over", path))?;
    }
    fs::write(path, text).map_err(DevstackError::io("writing", path))
}

/// Asks the kernel rather than reading modes, so that access lists and odd mounts count too.
fn can_enter(folder: &Path, user: &str) -> bool {
    process::command(Path::new("/usr/bin/test"), "KILL", Some(user))
        .arg("-w")
        .arg(folder)
        .status()
        .is_ok_and(|status| status.success())
}

fn owner_ids(user: &str) -> Result<(u32, u32), DevstackError> {
    let id = |flag: &str| {
        let output = Command::new("id").args([flag, user]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse::<u32>().ok()
    };
    id("-u").zip(id("-g")).ok_or(DevstackError::NoPostgresUser)
}

/// The folder of `postgres` and `initdb`: of the version that made the data, else from `PATH`, else the newest of
/// Debian's, which are not on `PATH`.
fn find_binaries(version: Option<&str>) -> Result<PathBuf, DevstackError> {
    let debian = Path::new("/usr/lib/postgresql");
    let complete = |bin: &PathBuf| bin.join("postgres").is_file() && bin.join("initdb").is_file();
    let made_it = version.map(|version| debian.join(version).join("bin"));
    let on_path = || {
        let program = process::find("postgres")?.canonicalize().ok()?;
        program.parent().map(Path::to_owned)
    };
    let newest = || {
        let versions = fs::read_dir(debian).ok()?.flatten();
        let bins = versions.filter_map(|entry| {
            let number: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((number, entry.path().join("bin")))
        });
        bins.filter(|(_, bin)| complete(bin)).max().map(|(_, bin)| bin)
    };
    made_it
        .filter(complete)
        .or_else(|| on_path().filter(complete))
        .or_else(newest)
        .ok_or_else(|| DevstackError::Missing { program: "postgres".into(), package: "postgresql" })
}
