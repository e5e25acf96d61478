//! A place in a snapshot, as `SNAPSHOT[:PATH]` names it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use vykar_core::format::Snapshot;
use vykar_core::repository::Manifest;

use crate::exit::CliResult;

/// A path in a snapshot.
pub struct Location<'m, 't> {
    pub snapshot: &'m Snapshot,
    /// As it was typed; empty where there is none.
    pub path: &'t [u8],
}

impl<'m, 't> Location<'m, 't> {
    /// Names of snapshots may hold a colon: one that is the whole text comes first, then what is before the first
    /// colon that ends the name of one.
    pub fn resolve(manifest: &'m Manifest, text: &'t OsStr) -> CliResult<Self> {
        let bytes = text.as_bytes();
        if let Some(snapshot) = manifest.snapshots.iter().find(|s| s.meta.name.as_bytes() == bytes) {
            // It may be one of several of this name, which resolve() refuses.
            let snapshot = manifest.resolve(&snapshot.meta.name)?;
            return Ok(Location { snapshot, path: b"" });
        }
        let mut first_error = None;
        let colons = bytes.iter().enumerate().filter(|(_, c)| **c == b':').map(|(at, _)| at);
        for at in colons {
            match manifest.resolve(&String::from_utf8_lossy(&bytes[..at])) {
                Ok(snapshot) => return Ok(Location { snapshot, path: &bytes[at + 1..] }),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        match first_error {
            Some(error) => Err(error.into()),
            None => {
                let snapshot = manifest.resolve(&String::from_utf8_lossy(bytes))?;
                Ok(Location { snapshot, path: b"" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::snapshot;

    #[test]
    fn the_first_colon_that_ends_a_name_ends_it() {
        let names = ["plain", "a:b", "a:b:c", "twice", "twice"];
        let snapshots = (1..).zip(names).map(|(day, name)| snapshot(name, "host", "label", day)).collect();
        let manifest = Manifest { snapshots, ..Manifest::default() };
        let place = |text: &str| {
            let place = Location::resolve(&manifest, OsStr::new(text))?;
            Ok((place.snapshot.meta.name.clone(), String::from_utf8_lossy(place.path).into_owned()))
        };
        for (text, name, path) in [
            ("plain", "plain", ""),
            ("plain:", "plain", ""),
            ("plain:x:y", "plain", "x:y"),
            ("pl:x", "plain", "x"),
            ("a:b", "a:b", ""),
            ("a:b:x", "a:b", "x"),
            ("a:b:c", "a:b:c", ""),
            ("a:b:c:x", "a:b", "c:x"),
            ("latest:a:b", "twice", "a:b"),
        ] {
            let is: CliResult<_> = place(text);
            assert_eq!(is.unwrap(), (name.to_owned(), path.to_owned()), "{text}");
        }
        for (text, message) in [
            ("none:x:y", "snapshot \"none\": not found"),
            ("twice", "snapshot \"twice\": matches "),
            ("twice:x", "snapshot \"twice\": matches "),
            (":x", "snapshot \"\": not found"),
        ] {
            let error: CliResult<_> = place(text);
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}
