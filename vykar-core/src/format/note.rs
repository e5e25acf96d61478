//! A note in a snapshot's `ext` that says which other snapshot it was made from.

use std::borrow::Cow;

use serde_bytes::ByteBuf;

use super::links::{self, LINKS, Links};
use super::snapshot::{SPECIAL, encode_special};
use super::wire::Reader;
use super::{Item, ItemProblem, ItemType, SnapshotMeta, special};
use crate::error::{Result, VykarError};
use crate::id::SnapshotId;

/// Key of the note of a snapshot that lacks some of the original's paths.
pub const REWRITTEN_FROM: &str = "rewritten_from";
/// Key of the note of a copy from another repository.
pub const COPIED_FROM: &str = "copied_from";

/// The snapshot that the note with this key names.
pub fn noted(meta: &SnapshotMeta, key: &str) -> Option<SnapshotId> {
    let mut r = Reader::new(meta.ext.as_deref()?);
    for _ in 0..r.map("ext").ok()? {
        if r.str("ext key").ok()? == key {
            return r.fixed("ext value").ok().map(SnapshotId);
        }
        r.skip("ext value").ok()?;
    }
    None
}

/// Chooses among special items, and names of one thing, whose kind is not known.
pub type KeepSpecial<'k> = &'k mut dyn FnMut(&Item<'_>) -> bool;

/// `ext` with a note, and all that is in it already, but for an older note with this key, and special items that break a
/// rule or are not to be kept. What is no map with names stays as it is, without the note.
pub fn with_note(
    ext: Option<&[u8]>,
    (key, id): (&str, &SnapshotId),
    keep: KeepSpecial<'_>,
) -> Result<Option<ByteBuf>> {
    let Some(others) = other_entries(ext.unwrap_or(&[0x80]), key, keep)? else {
        return Ok(ext.map(|ext| ByteBuf::from(ext.to_vec())));
    };
    let failed = |e: String| VykarError::Encode { what: "snapshot ext", reason: e };
    let count = u32::try_from(others.len() + 1).map_err(|e| failed(e.to_string()))?;
    let mut out = Vec::new();
    rmp::encode::write_map_len(&mut out, count).map_err(|e| failed(e.to_string()))?;
    others.iter().for_each(|entry| out.extend_from_slice(entry));
    rmp::encode::write_str(&mut out, key).map_err(|e| failed(e.to_string()))?;
    rmp::encode::write_bin(&mut out, id.as_bytes()).map_err(|e| failed(e.to_string()))?;
    Ok(Some(ByteBuf::from(out)))
}

/// What can be read of a damaged `ext`: a map of its entries up to the first that ends too early or is none, and of the
/// special items in that one.
pub fn whole_entries(ext: &[u8]) -> Result<Vec<u8>> {
    let mut r = Reader::new(ext);
    let mut entries: Vec<&[u8]> = Vec::new();
    let mut sound = Vec::new();
    for _ in 0..r.map("ext").unwrap_or(0) {
        let begin = r.position();
        let Ok(key) = r.str("ext key") else { break };
        if key == SPECIAL {
            let mut value = Reader::new(&ext[r.position()..]);
            let mut take = |item: std::result::Result<Item<'_>, ItemProblem>| {
                sound.extend(item.ok().map(|item| special::encode(&item)));
                true
            };
            let _ = special::decode_each(&mut value, &mut take);
        }
        if r.skip("ext value").is_err() {
            break;
        }
        if key != SPECIAL {
            entries.push(&ext[begin..r.position()]);
        }
    }
    let sound = sound.into_iter().collect::<Result<Vec<_>>>()?;
    let failed = |e: String| VykarError::Encode { what: "snapshot ext", reason: e };
    let count = entries.len() + usize::from(!sound.is_empty());
    let count = u32::try_from(count).map_err(|e| failed(e.to_string()))?;
    let mut out = Vec::new();
    rmp::encode::write_map_len(&mut out, count).map_err(|e| failed(e.to_string()))?;
    entries.iter().for_each(|entry| out.extend_from_slice(entry));
    if !sound.is_empty() {
        out.extend(encode_special(&sound)?);
    }
    Ok(out)
}

/// The bytes of each entry but the note.
pub(crate) fn other_entries<'e>(
    ext: &'e [u8],
    key: &str,
    keep: KeepSpecial<'_>,
) -> Result<Option<Vec<Cow<'e, [u8]>>>> {
    let Some(mut entries) = entries(ext, key) else { return Ok(None) };
    for (key, bytes) in &mut entries {
        if *key == SPECIAL {
            let mut sound = Vec::new();
            let mut value = Reader::new(bytes);
            // Its key was read before.
            let _ = value.str("ext key");
            let mut take = |item: std::result::Result<Item<'_>, ItemProblem>| {
                sound.extend(item.ok().filter(|item| keep(item)).map(|item| special::encode(&item)));
                true
            };
            let _ = special::decode_each(&mut value, &mut take);
            let sound = sound.into_iter().collect::<Result<Vec<_>>>()?;
            *bytes = Cow::Owned(encode_special(&sound)?);
        } else if *key == LINKS {
            let mut value = Reader::new(bytes);
            // Its key was read before.
            let _ = value.str("ext key");
            let mut kept = |path: &[u8]| {
                let mut item = Item::new("", ItemType::Symlink);
                item.set_names(path.into(), None);
                keep(&item)
            };
            let groups = Links::read(&mut value).unwrap_or_default().groups(&mut kept);
            *bytes = Cow::Owned(links::encode(&groups)?);
        }
    }
    Ok(Some(entries.into_iter().map(|(_, bytes)| bytes).collect()))
}

/// An entry's key, and its bytes, key included.
type ExtEntry<'e> = (&'e str, Cow<'e, [u8]>);

fn entries<'e>(ext: &'e [u8], note: &str) -> Option<Vec<ExtEntry<'e>>> {
    let mut r = Reader::new(ext);
    let count = r.map("ext").ok()?;
    let mut entries = Vec::with_capacity(r.capacity(count, 2));
    for _ in 0..count {
        let begin = r.position();
        let key = r.str("ext key").ok()?;
        r.skip("ext value").ok()?;
        if key != note {
            entries.push((key, Cow::Borrowed(&ext[begin..r.position()])));
        }
    }
    (r.remaining() == 0).then_some(entries)
}
