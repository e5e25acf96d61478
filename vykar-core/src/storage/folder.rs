//! A repository's folder as what it is on a local file system: what else lies in it, and taking it away.

use std::fs;
use std::io;
use std::path::Path;

use super::disk;
use super::local::{RESERVE, is_leftover};

/// Names of all that lies in a repository's folder and is neither an object nor an unfinished write: relative to it, a
/// folder's with a `/` at its end, sorted. Only folders that `is_folder` knows are looked into. What is not UTF-8 in a
/// name is replaced.
pub fn strangers(
    root: &Path,
    is_folder: &dyn Fn(&str) -> bool,
    is_object: &dyn Fn(&str) -> bool,
) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    look(root, "", (is_folder, is_object), &mut found)?;
    found.sort_unstable();
    Ok(found)
}

/// Tells one kind of name from all others.
type NameTest<'k> = &'k dyn Fn(&str) -> bool;

fn look(
    dir: &Path,
    prefix: &str,
    (is_folder, is_object): (NameTest<'_>, NameTest<'_>),
    found: &mut Vec<String>,
) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = match entry.file_type() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // One that lies elsewhere, and is linked to here, is used as well.
        let is_dir = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
        if is_dir && is_folder(&name) {
            look(&entry.path(), &format!("{name}/"), (is_folder, is_object), found)?;
        } else if kind.is_dir() {
            found.push(name + "/");
        } else if !(kind.is_file() && (is_object(&name) || is_leftover(&name) || name == RESERVE)) {
            found.push(name);
        }
    }
    Ok(())
}

/// Removes these folders below `root`, in this order, where they are empty. The others stay, whatever keeps them.
pub fn remove_empty(root: &Path, folders: impl IntoIterator<Item = String>) {
    for folder in folders {
        let _ = disk::remove_dir(&root.join(folder));
    }
}

/// Removes a repository's folder itself; false where it stays.
pub fn remove_root(root: &Path) -> bool {
    let _ = fs::remove_file(root.join(RESERVE));
    disk::remove_dir(root).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_is_not_an_object_is_named_and_only_empty_folders_go() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repo");
        for folder in ["packs/ab", "packs/cd", "photos/2020", "empty"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let temporary = format!("packs/.tmp-{}", "0f".repeat(16));
        for file in
            ["config", "notes.txt", "packs/ab/object", "packs/ab/.hidden", "photos/2020/a", &temporary]
        {
            fs::write(root.join(file), b"x").unwrap();
        }
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), b"x").unwrap();
        std::os::unix::fs::symlink("notes.txt", root.join("packs/linked")).unwrap();
        let is_folder = |name: &str| ["packs", "packs/ab", "packs/cd"].contains(&name);
        let is_object = |name: &str| ["config", "packs/ab/object", "packs/linked"].contains(&name);
        let found = strangers(&root, &is_folder, &is_object).unwrap();
        // A link is no object, whatever its name.
        let expected = ["empty/", "notes.txt", "packs/ab/.hidden", "packs/linked", "photos/", "\u{fffd}"];
        assert_eq!(found, expected);
        remove_empty(&root, ["packs/ab", "packs/cd", "packs", "nothing"].map(str::to_owned));
        assert!(root.join("packs/ab/.hidden").exists() && !root.join("packs/cd").exists());
        assert!(root.join("empty").exists() && !remove_root(&root));
        assert_eq!(strangers(&dir.path().join("nowhere"), &is_folder, &is_object).unwrap(), [""; 0]);
    }
}
