//! The file of sections with any bytes in it.

#![allow(clippy::panic, reason = "that is how a target says what it found")]

use std::collections::HashSet;

use super::{Index, Renumbering, parse};

/// The body of a file, whose check was good. What is read is written so that it reads as the same again.
pub fn versions_copy(body: &[u8]) {
    let Some(index) = parse(body) else { return };
    let kept: HashSet<_> = index.lists.keys().copied().collect();
    let mut written = Vec::new();
    Renumbering::new(&index).encode(&kept, &mut written);
    let Some(again) = parse(&written) else { panic!("what was written cannot be read") };
    assert_eq!(index.lists.len(), again.lists.len());
    for (id, list) in &index.lists {
        let other = &again.lists[id];
        assert_eq!(list.sections.len(), other.sections.len());
        for (a, b) in list.sections.iter().zip(other.sections.iter()) {
            assert_eq!(describe(&index, *a), describe(&again, *b));
        }
    }
}

/// What a section says, without the numbers that things have in this index.
fn describe(index: &Index, at: u32) -> String {
    let Some(section) = index.section(at) else { panic!("a list names a section that is not there") };
    let mut mentions: Vec<_> = section
        .mentions
        .iter()
        .map(|value| super::Mention::decode(*value))
        .map(|mention| (index.dirs.path(mention.dir), mention.files))
        .collect();
    mentions.sort();
    let owns = section.owns.iter().map(|(dir, rights)| (index.dirs.path(*dir), index.rights.get(*rights)));
    let owns: Vec<_> = owns.collect();
    // Which section left that may depend on the order of lists.
    let before = index.tail_id(section.before);
    let (chunk, tail, id) = (section.chunk, &section.tail, section.tail_id);
    format!("{chunk:?} {before:?} {tail:?} {id:?} {} {mentions:?} {owns:?}", section.broken)
}
