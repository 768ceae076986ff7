//! The folder with backups: names, and which of them stay.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

use super::archive::checksum_file;

/// Time in a name: UTC, so that names sort by age.
const TIME: &str = "%Y%m%dT%H%M%S%.3fZ";

/// Which backups stay: the newest so many, and those that are younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    pub newest: usize,
    pub days: u32,
}

/// The backups of one database in one folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    /// Begins every name: of another database's backups nothing is removed.
    prefix: String,
}

/// A backup that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub path: PathBuf,
    pub at: Timestamp,
}

impl Folder {
    pub fn new(path: &Path, database: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
        Self {
            path: path.to_owned(),
            prefix: format!("cota-{}-", database.chars().map(plain).collect::<String>()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name and place of a backup made at this time.
    pub fn name(&self, at: Timestamp) -> String {
        format!("{}{}.dump", self.prefix, at.strftime(TIME))
    }

    /// Where it is until it is one.
    pub fn draft(&self, at: Timestamp) -> PathBuf {
        self.path.join(format!("{}.draft", self.name(at)))
    }

    /// All backups, newest first: what is named as we name them and has its checksum beside it.
    pub fn backups(&self) -> io::Result<Vec<Backup>> {
        let mut found = Vec::new();
        for name in self.names()? {
            let path = self.path.join(&name);
            if let Some(at) = self.time_of(&name).filter(|_| checksum_file(&path).is_file()) {
                found.push(Backup { path, at });
            }
        }
        found.sort_by_key(|backup| std::cmp::Reverse(backup.at));
        Ok(found)
    }

    /// Removes backups that need not stay; `made` always does. Says which.
    pub fn thin(&self, keep: Keep, now: Timestamp, made: &Path) -> io::Result<Vec<PathBuf>> {
        let young = SignedDuration::from_hours(24 * i64::from(keep.days));
        let mut removed = Vec::new();
        for (place, backup) in self.backups()?.into_iter().enumerate() {
            if place < keep.newest || now.duration_since(backup.at) < young || backup.path == made {
                continue;
            }
            // The backup first: one without a checksum is none, but a checksum alone harms nobody.
            fs::remove_file(&backup.path)?;
            fs::remove_file(checksum_file(&backup.path))?;
            removed.push(backup.path);
        }
        Ok(removed)
    }

    /// Removes what attempts that were cut short have left. Only under the lock.
    pub fn clear_drafts(&self) -> io::Result<()> {
        for name in self.names()? {
            let draft = name.strip_suffix(".draft").map(|name| name.trim_end_matches(".sha256"));
            if draft.is_some_and(|name| self.time_of(name).is_some()) {
                fs::remove_file(self.path.join(name))?;
            }
        }
        Ok(())
    }

    /// Gets renames on disk.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn time_of(&self, name: &str) -> Option<Timestamp> {
        let time = name.strip_prefix(&*self.prefix)?.strip_suffix(".dump")?;
        let at = DateTime::strptime(TIME, time).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
        // Another spelling of the time is not ours.
        (self.name(at) == name).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn scratch() -> Scratch {
        let path = std::env::temp_dir().join(format!("cota-folder-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn touch(folder: &Folder, name: &str) {
        fs::write(folder.path.join(name), "x").unwrap();
    }

    fn put(folder: &Folder, at: Timestamp) -> String {
        let name = folder.name(at);
        touch(folder, &name);
        touch(folder, &format!("{name}.sha256"));
        name
    }

    fn left(folder: &Folder) -> Vec<String> {
        let mut names = folder.names().unwrap();
        names.sort();
        names
    }

    #[test]
    fn the_newest_and_the_young_stay_and_so_does_what_is_not_ours() {
        let scratch = scratch();
        let folder = Folder::new(&scratch.0, "cota");
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let ago = |hours| now - SignedDuration::from_hours(hours);
        let all: Vec<String> = [1, 30, 50, 80].map(|hours| put(&folder, ago(hours))).to_vec();
        let strange = ["cota-cota-20200101T000000Z.dump", "cota-cota-old.dump", "notes.txt", "x.dump.draft"];
        strange.iter().for_each(|name| touch(&folder, name));
        // Without its checksum, and of another database.
        let bare = folder.name(ago(500));
        touch(&folder, &bare);
        let other = put(&Folder::new(&scratch.0, "cota-2"), ago(500));
        let removed = folder.thin(Keep { newest: 1, days: 2 }, now, Path::new("none")).unwrap();
        assert_eq!(removed, [folder.path.join(&all[2]), folder.path.join(&all[3])]);
        let left = left(&folder);
        for name in strange.iter().copied().chain([&*bare, &*other, &*all[0], &*all[1]]) {
            assert!(left.iter().any(|there| there == name), "{name}");
        }
        assert_eq!(left.len(), 4 + 1 + 2 + 4);
    }

    #[test]
    fn the_one_just_made_stays_also_when_the_clock_went_back() {
        let scratch = scratch();
        let folder = Folder::new(&scratch.0, "cota");
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let later = put(&folder, now + SignedDuration::from_hours(5));
        let made = put(&folder, now);
        let removed = folder.thin(Keep { newest: 1, days: 0 }, now, &folder.path.join(&made)).unwrap();
        assert_eq!(removed, [] as [PathBuf; 0]);
        assert_eq!(folder.backups().unwrap()[0].path, folder.path.join(later));
    }

    #[test]
    fn only_our_drafts_are_cleared() {
        let scratch = scratch();
        let folder = Folder::new(&scratch.0, "cota");
        let name = folder.name(Timestamp::now());
        for draft in [format!("{name}.draft"), format!("{name}.sha256.draft")] {
            touch(&folder, &draft);
        }
        for other in ["mine.draft", "cota-cota-mine.dump.draft"] {
            touch(&folder, other);
        }
        folder.clear_drafts().unwrap();
        assert_eq!(left(&folder), ["cota-cota-mine.dump.draft", "mine.draft"]);
    }
}
