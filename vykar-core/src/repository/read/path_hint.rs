//! Which paths of a snapshot somebody may have meant who named one that is not there.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use crate::error::Result;
use crate::format::Snapshot;
use crate::format::path::{name, plain};
use crate::repository::ReadChunk;
use crate::repository::read::items::{FoundItem, for_each_item};

/// For each of these paths the one that is there in its place: without the source's own path in front, or in another
/// Unicode form. Reads all items, so it is for paths that were not found.
///
/// # Errors
/// None of its own: what cannot be read is no hint.
pub fn meant(
    reader: &dyn ReadChunk,
    snapshot: &Snapshot,
    wanted: &[Vec<u8>],
) -> Result<HashMap<Vec<u8>, Vec<u8>>> {
    let mut forms: HashMap<Vec<u8>, Vec<&Vec<u8>>> = HashMap::new();
    for path in wanted.iter().filter(|path| !path.is_empty()) {
        forms.entry(composed(&plain(path))).or_default().push(path);
        if let Some(inside) = without_source(path, &snapshot.meta.source_paths) {
            forms.entry(composed(&inside)).or_default().push(path);
        }
    }
    let mut meant = HashMap::new();
    for_each_item(reader, snapshot, &mut |found| {
        if let FoundItem::Item(item) = found {
            let there = item.path_bytes();
            for path in forms.get(&composed(there)).into_iter().flatten() {
                meant.entry((*path).clone()).or_insert_with(|| there.to_vec());
            }
        }
        Ok(meant.len() < wanted.len())
    })?;
    Ok(meant)
}

/// A path below the one source, or the source itself where that is a file, as the snapshot has it.
fn without_source(path: &[u8], sources: &[String]) -> Option<Vec<u8>> {
    let [source] = sources else { return None };
    let (path, source) = (plain(path), plain(source.as_bytes()));
    match path.strip_prefix(&source[..])? {
        [] => Some(name(&source).to_vec()),
        rest => rest.strip_prefix(b"/").map(<[u8]>::to_vec),
    }
}

/// One form for all ways to write the same letters; bytes that are no text stay.
fn composed(path: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(path) {
        Ok(text) if !text.is_ascii() => text.nfc().collect::<String>().into_bytes(),
        _ => path.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_absolute_paths_lead_to_what_is_there() {
        assert_eq!(composed("u\u{308}/x".as_bytes()), composed("\u{fc}/x".as_bytes()));
        assert_eq!(composed(b"\xff"), b"\xff");
        let one = ["/home/me".to_owned()];
        assert_eq!(without_source(b"/home/me/a/b", &one), Some(b"a/b".to_vec()));
        assert_eq!(without_source(b"home/me/", &one), Some(b"me".to_vec()));
        assert_eq!(without_source(b"/home/mee", &one), None);
        assert_eq!(without_source(b"/home/me/a", &["/home/me".to_owned(), "/etc".to_owned()]), None);
    }
}
