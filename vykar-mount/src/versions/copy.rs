//! The sections in a local file, so that a later mount need not decode any item stream to know them.
//!
//! A sealed object (a local cache of what snapshots are made from, tag 8, context `versions`), replaced by
//! rename. Numbers are little endian:
//!
//! ```text
//! "VYKARVS2" | check 32
//! rights u32    | (uid u32 | gid u32 | mode u16 | list length u32 | access control list) ...
//! dirs u32      | (parent u32 | name length u8 | name) ...          without the top, parents first
//! sections u32  | (flags u8 | chunk 32, if it has one | tail id 16 | tail length u32 | tail, if it is kept
//!                 | mentions u32 | mention u32 ...
//!                 | directories u32 | directory u32 ... | rights u32 | their rights u32 ...) ...
//! snapshots u32 | (id 32 | sections u32 | section u32 ...) ...
//! ```
//!
//! The check is a hash, keyed with the repository's, of all behind it: without encryption nothing else tells
//! damage. Whatever looks wrong means that there is no such file.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use vykar_core::format::ObjectKind;
use vykar_core::format::envelope::seal_into;
use vykar_core::local_state::cache_file;
use vykar_core::platform::read::open_regular;
use vykar_core::repository::Keys;
use vykar_core::{ChunkId, SnapshotId, VykarError};

use super::paths::{Paths, TOP};
use super::rights::{Rights, RightsTable};
use super::sections::{Index, List, MAX_KEPT, Mention, NONE, Section, Tail, TailId};

pub(crate) mod fuzz;

const MAGIC: &[u8; 8] = b"VYKARVS2";
const KIND: ObjectKind = ObjectKind::SnapshotCache;
const CONTEXT: &[u8] = b"versions";
/// A larger file is neither written nor read, in bytes.
const MAX_FILE: usize = 256 << 20;
const CHECK: usize = 32;

const HAS_CHUNK: u8 = 1;
const IS_BROKEN: u8 = 2;
const IS_LONG: u8 = 4;

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("versions")
}

/// What the file in this folder says; `None` where there is none that can be used.
pub(super) fn read(dir: &Path, keys: &Keys) -> Option<Index> {
    let mut object = Vec::new();
    let mut file = open_regular(&path(dir)).ok()?.take(MAX_FILE as u64 + 1);
    file.read_to_end(&mut object).ok().filter(|len| *len <= MAX_FILE)?;
    let plain = keys.open(KIND, CONTEXT, &mut object).ok()?;
    let body = plain.strip_prefix(MAGIC)?;
    let (sum, body) = body.split_first_chunk::<CHECK>()?;
    if check(keys, body)? != *sum {
        return None;
    }
    parse(body)
}

fn check(keys: &Keys, body: &[u8]) -> Option<[u8; CHECK]> {
    keys.hasher().local(b"vykarvck", &[body]).ok()
}

struct CopyFields<'a>(&'a [u8]);

impl<'a> CopyFields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    /// Numbers below `end`, with their count before them.
    fn numbers(&mut self, end: usize) -> Option<Box<[u32]>> {
        let count = self.u32()? as usize;
        let (numbers, _) = self.bytes(count.checked_mul(4)?)?.as_chunks::<4>();
        let numbers = numbers.iter().map(|n| Some(u32::from_le_bytes(*n)).filter(|n| (*n as usize) < end));
        numbers.collect()
    }
}

fn parse(body: &[u8]) -> Option<Index> {
    let mut fields = CopyFields(body);
    let rights = parse_rights(&mut fields)?;
    let mut dirs = Paths::default();
    for at in 1..=fields.u32()? {
        let (parent, len) = (fields.u32()?, fields.take::<1>()?[0]);
        let name = fields.bytes(len.into())?;
        if parent >= at || dirs.add(parent, name)? != at {
            return None;
        }
    }
    let ends = (dirs.len(), rights.len());
    let mut sections = Vec::new();
    for _ in 0..fields.u32()? {
        sections.push(Some(parse_section(&mut fields, ends)?));
    }
    let mut index = Index::default();
    (index.dirs, index.rights) = (dirs, rights);
    let mut numbers = vec![NONE; sections.len()];
    for _ in 0..fields.u32()? {
        let id = SnapshotId(fields.take()?);
        let mut list = fields.numbers(sections.len())?;
        let mut before = NONE;
        for at in &mut list {
            let (from, tail) = (*at as usize, index.tail_id(before));
            if let Some(section) = sections[from].take() {
                let key = (tail, section.chunk);
                if index.find(&key).is_some() {
                    return None;
                }
                numbers[from] = index.add(key, Section { before, ..section })?;
            }
            *at = numbers[from];
            let same = index.section(*at).and_then(|section| index.find(&(tail, section.chunk)));
            // The tail before a section belongs to what it is.
            if same != Some(*at) {
                return None;
            }
            before = *at;
        }
        index.lists.insert(id, List { sections: list.into(), lost: None });
    }
    fields.0.is_empty().then_some(index)
}

fn parse_rights(fields: &mut CopyFields<'_>) -> Option<RightsTable> {
    let mut table = RightsTable::default();
    for at in 0..fields.u32()? {
        let (uid, gid, mode) = (fields.u32()?, fields.u32()?, u16::from_le_bytes(fields.take()?));
        let len = fields.u32()? as usize;
        let list = fields.bytes(len)?.into();
        // Each has one number.
        if mode > 0o7777 || table.add(Rights { uid, gid, mode, list }) != at {
            return None;
        }
    }
    Some(table)
}

fn parse_section(fields: &mut CopyFields<'_>, (dirs, rights): (usize, usize)) -> Option<Section> {
    let flags = fields.take::<1>()?[0];
    let chunk = match flags & HAS_CHUNK {
        0 => None,
        _ => Some(ChunkId(fields.take()?)),
    };
    let tail_id: TailId = fields.take()?;
    let len = fields.u32()?;
    let tail = match flags & IS_LONG {
        0 if len as usize > MAX_KEPT => return None,
        0 => Tail::Kept(fields.bytes(len as usize)?.into()),
        _ => Tail::Long(len),
    };
    let mentions = fields.numbers(dirs.checked_mul(2)?)?;
    let (owned, theirs) = (fields.numbers(dirs)?, fields.numbers(rights)?);
    if owned.len() != theirs.len() {
        return None;
    }
    Some(Section {
        chunk,
        before: NONE,
        tail,
        tail_id,
        broken: flags & IS_BROKEN != 0,
        mentions,
        owns: owned.iter().copied().zip(theirs).collect(),
        number: 0,
        info: None,
    })
}

/// Writes the snapshots among `kept`, and what they are made of.
///
/// # Errors
/// Fails when the file cannot be written; the old one stays then.
pub(super) fn write(dir: &Path, keys: &Keys, index: &Index, kept: &HashSet<SnapshotId>) -> io::Result<()> {
    let mut object = Vec::new();
    seal_into(keys.engine(), KIND, CONTEXT, &mut object, |out| {
        let start = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; CHECK]);
        Renumbering::new(index).encode(kept, out);
        let body = start + MAGIC.len() + CHECK;
        let sum = keys.hasher().local(b"vykarvck", &[&out[body..]])?;
        out[body - CHECK..body].copy_from_slice(&sum);
        Ok::<(), VykarError>(())
    })
    .map_err(io::Error::other)?;
    if object.len() > MAX_FILE {
        return Ok(());
    }
    vykar_core::platform::private::make_dirs(dir)?;
    cache_file::write(&path(dir), &[&object])
}

/// Gives new numbers to the sections and directories that are written.
struct Renumbering<'i> {
    index: &'i Index,
    sections: HashMap<u32, u32>,
    dirs: HashMap<u32, u32>,
    rights: HashMap<u32, u32>,
    /// The old numbers, in the order of the new ones.
    sections_in_order: Vec<u32>,
    dirs_in_order: Vec<u32>,
    rights_in_order: Vec<u32>,
}

impl<'i> Renumbering<'i> {
    fn new(index: &'i Index) -> Self {
        Renumbering {
            index,
            sections: HashMap::new(),
            dirs: HashMap::from([(TOP, TOP)]),
            rights: HashMap::new(),
            sections_in_order: Vec::new(),
            dirs_in_order: Vec::new(),
            rights_in_order: Vec::new(),
        }
    }

    fn encode(mut self, kept: &HashSet<SnapshotId>, out: &mut Vec<u8>) {
        let whole = |(id, list): &(&SnapshotId, &List)| list.lost.is_none() && kept.contains(id);
        let lists: Vec<_> = self.index.lists.iter().filter(whole).collect();
        for at in lists.iter().flat_map(|(_, list)| list.sections.iter()) {
            let next = self.sections.len() as u32;
            if *self.sections.entry(*at).or_insert(next) == next {
                self.sections_in_order.push(*at);
            }
        }
        let mut sections = Vec::new();
        for at in std::mem::take(&mut self.sections_in_order) {
            self.encode_section(at, &mut sections);
        }
        self.encode_rights(out);
        put(out, self.dirs_in_order.len());
        for dir in &self.dirs_in_order {
            let name = self.index.dirs.name(*dir);
            let parent = self.dirs.get(&self.index.dirs.parent(*dir)).copied().unwrap_or(TOP);
            put(out, parent as usize);
            // Paths takes no longer names.
            out.push(name.len() as u8);
            out.extend_from_slice(name);
        }
        put(out, self.sections.len());
        out.append(&mut sections);
        put(out, lists.len());
        for (id, list) in lists {
            out.extend_from_slice(&id.0);
            put(out, list.sections.len());
            for at in list.sections.iter() {
                put(out, self.sections.get(at).copied().unwrap_or(NONE) as usize);
            }
        }
    }

    fn encode_rights(&self, out: &mut Vec<u8>) {
        let rights: Vec<_> = self.rights_in_order.iter().filter_map(|n| self.index.rights.get(*n)).collect();
        put(out, rights.len());
        for rights in rights {
            out.extend(rights.uid.to_le_bytes());
            out.extend(rights.gid.to_le_bytes());
            out.extend(rights.mode.to_le_bytes());
            put(out, rights.list.len());
            out.extend_from_slice(&rights.list);
        }
    }

    fn encode_section(&mut self, at: u32, out: &mut Vec<u8>) {
        let Some(section) = self.index.section(at) else { return };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let long = matches!(section.tail, Tail::Long(_));
        out.push(
            flag(section.chunk.is_some(), HAS_CHUNK) | flag(section.broken, IS_BROKEN) | flag(long, IS_LONG),
        );
        out.extend(section.chunk.iter().flat_map(|id| id.0));
        out.extend_from_slice(&section.tail_id);
        out.extend((section.tail.len() as u32).to_le_bytes());
        if let Tail::Kept(bytes) = &section.tail {
            out.extend_from_slice(bytes);
        }
        out.extend((section.mentions.len() as u32).to_le_bytes());
        for mention in section.mentions.iter().map(|value| Mention::decode(*value)) {
            let dir = self.dir(mention.dir);
            out.extend(Mention { dir, ..mention }.encode().to_le_bytes());
        }
        // Those without rights are made up where the file is read.
        let known = |(_, rights): &&(u32, u32)| self.index.rights.get(*rights).is_some();
        let owns: Vec<_> = section.owns.iter().filter(known).copied().collect();
        put(out, owns.len());
        for (dir, _) in &owns {
            put(out, self.dir(*dir) as usize);
        }
        put(out, owns.len());
        for (_, rights) in &owns {
            put(out, self.rights(*rights) as usize);
        }
    }

    /// The new number of rights.
    fn rights(&mut self, old: u32) -> u32 {
        let next = self.rights_in_order.len() as u32;
        *self.rights.entry(old).or_insert_with(|| {
            self.rights_in_order.push(old);
            next
        })
    }

    /// The new number of a directory. Those above it get theirs first.
    fn dir(&mut self, dir: u32) -> u32 {
        let mut missing = Vec::new();
        let mut at = dir;
        while !self.dirs.contains_key(&at) {
            missing.push(at);
            at = self.index.dirs.parent(at);
        }
        for at in missing.into_iter().rev() {
            self.dirs_in_order.push(at);
            self.dirs.insert(at, self.dirs_in_order.len() as u32);
        }
        self.dirs.get(&dir).copied().unwrap_or(TOP)
    }
}

fn put(out: &mut Vec<u8>, n: usize) {
    out.extend((n as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use vykar_core::format::{ChunkerParams, Encryption, MasterKeys, RepoConfig};

    fn keys(encryption: Encryption, repository: u8) -> Keys {
        let config = RepoConfig {
            version: 2,
            id: vykar_core::RepositoryId([repository; 32]),
            chunker: ChunkerParams::FILES,
            encryption,
            created: String::new(),
            min_pack_size: 1,
            max_pack_size: 2,
        };
        let master = MasterKeys { encryption_key: [repository; 32], chunk_id_key: [repository; 32] };
        Keys::new(&config, Some(&master)).unwrap()
    }

    fn rights(n: u8) -> Rights {
        let list = if n == 2 { b"a list".to_vec() } else { Vec::new() };
        Rights { uid: n.into(), gid: 7, mode: 0o750, list: list.into() }
    }

    /// Three snapshots: 1 of sections A B, 2 of A C, 3 of D.
    fn sample() -> Index {
        let mut index = Index::default();
        let mut add = |n: u8, before: u32, tail: Tail, dirs: &[&str]| {
            let mut table = std::mem::take(&mut index.rights);
            let mut owned = |n: u8| table.add(rights(n));
            let owns = dirs.iter().map(|dir| (index.dirs.add_path(dir.as_bytes()).unwrap(), owned(n)));
            let owns = owns.collect();
            index.rights = table;
            let mentions = dirs.iter().map(|dir| {
                let dir = index.dirs.add_path(dir.as_bytes()).unwrap();
                Mention { dir, files: dir % 2 == 0 }.encode()
            });
            let section = Section {
                chunk: (n != 3).then_some(ChunkId([n; 32])),
                before,
                tail_id: if tail.len() == 0 { [0; 16] } else { [n; 16] },
                tail,
                broken: n == 4,
                mentions: mentions.collect(),
                owns,
                number: 0,
                info: None,
            };
            index.add((index.tail_id(before), section.chunk), section).unwrap()
        };
        let kept = |bytes: &[u8]| Tail::Kept(bytes.into());
        let a = add(1, NONE, kept(b"rest"), &["", "x", "x/y"]);
        let b = add(2, a, Tail::Long(5000), &["x/y/z"]);
        let c = add(3, a, kept(b""), &["x/only"]);
        let d = add(4, NONE, kept(b""), &["", "w"]);
        for (n, sections) in [(1, vec![a, b]), (2, vec![a, c]), (3, vec![d])] {
            index.lists.insert(SnapshotId([n; 32]), List { sections: sections.into(), lost: None });
        }
        index
    }

    fn all() -> HashSet<SnapshotId> {
        (1..9).map(|n| SnapshotId([n; 32])).collect()
    }

    /// What an index says of its snapshots, whatever the numbers.
    fn said(index: &Index) -> Vec<String> {
        let mut said: Vec<_> = index
            .lists
            .iter()
            .map(|(id, list)| {
                let sections = list.sections.iter().map(|at| {
                    let s = index.section(*at).unwrap();
                    let dirs = s.mentions.iter().map(|m| Mention::decode(*m));
                    let dirs: Vec<_> = dirs.map(|m| (index.dirs.path(m.dir), m.files)).collect();
                    let owns =
                        s.owns.iter().map(|(d, r)| (index.dirs.path(*d), index.rights.get(*r).unwrap()));
                    let owns: Vec<_> = owns.collect();
                    let what = (s.chunk, &s.tail, s.tail_id, s.broken, s.number);
                    format!("{what:?} {dirs:?} {owns:?}")
                });
                format!("{id}: {:?}", sections.collect::<Vec<_>>())
            })
            .collect();
        said.sort();
        said
    }

    #[test]
    fn what_was_written_is_read_and_what_no_snapshot_has_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, index) = (keys(Encryption::Aes256Gcm, 1), sample());
        assert!(read(dir.path(), &keys).is_none());
        write(dir.path(), &keys, &index, &all()).unwrap();
        let copy = read(dir.path(), &keys).unwrap();
        assert_eq!(said(&copy), said(&index));
        for list in copy.lists.values() {
            let before = [&[NONE], &list.sections[..]].concat();
            for (at, before) in list.sections.iter().zip(before) {
                assert_eq!(copy.section(*at).unwrap().before, before);
            }
        }
        let last = HashSet::from([SnapshotId([3; 32])]);
        write(dir.path(), &keys, &index, &last).unwrap();
        let copy = read(dir.path(), &keys).unwrap();
        assert_eq!((copy.sections.len(), copy.dirs.len(), copy.lists.len()), (1, 2, 1));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn anything_else_is_no_such_file() {
        let dir = tempfile::tempdir().unwrap();
        for encryption in [Encryption::None, Encryption::Chacha20Poly1305] {
            let keys_of = |repository| keys(encryption, repository);
            write(dir.path(), &keys_of(1), &sample(), &all()).unwrap();
            let good = fs::read(path(dir.path())).unwrap();
            assert!(read(dir.path(), &keys_of(1)).is_some());
            assert!(read(dir.path(), &keys_of(2)).is_none(), "another repository's");
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                fs::write(path(dir.path()), &bad).unwrap();
                assert!(read(dir.path(), &keys_of(1)).is_none(), "{at}");
                fs::write(path(dir.path()), &good[..at]).unwrap();
                assert!(read(dir.path(), &keys_of(1)).is_none(), "{at}");
            }
        }
    }

    #[test]
    fn bytes_that_contradict_themselves_are_no_such_file_and_no_panic() {
        let mut body = Vec::new();
        Renumbering::new(&sample()).encode(&all(), &mut body);
        assert!(parse(&body).is_some());
        for at in 0..body.len() {
            assert!(parse(&body[..at]).is_none(), "{at}");
            for flip in [1, 0x80, 0xff] {
                let mut bad = body.clone();
                bad[at] ^= flip;
                let Some(index) = parse(&bad) else { continue };
                let sections = index.sections.len();
                assert!(
                    index.lists.values().flat_map(|l| l.sections.iter()).all(|s| (*s as usize) < sections)
                );
                let mentions = index.sections.iter().flat_map(|s| s.mentions.iter());
                assert!(mentions.clone().all(|m| (Mention::decode(*m).dir as usize) < index.dirs.len()));
                let mut owns = index.sections.iter().flat_map(|s| s.owns.iter());
                assert!(
                    owns.all(|(d, r)| (*d as usize) < index.dirs.len() && index.rights.get(*r).is_some())
                );
            }
        }
        body.push(0);
        assert!(parse(&body).is_none());
    }
}
