//! What a snapshot keeps outside its item stream, collected while the walk meets it.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_bytes::ByteBuf;

use crate::backup::source::entry::Stat;
use crate::error::Result;
use crate::format::links::{self, Group};
use crate::format::wire::{self, Reader};
use crate::format::{Item, snapshot, special};

/// The source directory's own item, special items, and names of one thing that is no regular file.
#[derive(Default)]
pub struct Extras {
    root: Mutex<Option<Vec<u8>>>,
    specials: Mutex<Specials>,
    linked: Mutex<LinkedPaths>,
}

/// FIFOs, sockets and device nodes, encoded, with their paths.
#[derive(Default)]
struct Specials {
    items: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

/// Paths by device and inode.
#[derive(Default)]
struct LinkedPaths {
    groups: HashMap<(u64, u64), Group>,
    bytes: usize,
}

impl Extras {
    /// Keeps the source directory's own item.
    pub fn set_root(&self, item: &Item<'_>) -> Result<()> {
        *self.root.lock() = Some(wire::encode("root item", item)?);
        Ok(())
    }

    /// The source directory's own item, encoded.
    pub fn take_root(&self) -> Option<Vec<u8>> {
        self.root.lock().take()
    }

    /// Keeps a FIFO, a socket or a device node; false when there is no room for more.
    pub fn add_special(&self, item: &Item<'_>) -> Result<bool> {
        let encoded = special::encode(item)?;
        let mut specials = self.specials.lock();
        if specials.bytes.saturating_add(encoded.len()) > special::MAX_BYTES {
            return Ok(false);
        }
        specials.bytes += encoded.len();
        specials.items.push((item.path_bytes().to_vec(), encoded));
        Ok(true)
    }

    /// All of them, encoded, in the order of their paths.
    pub fn take_specials(&self) -> Vec<Vec<u8>> {
        let mut items = std::mem::take(&mut self.specials.lock().items);
        items.sort();
        items.into_iter().map(|(_, encoded)| encoded).collect()
    }

    /// Remembers a path of something that is neither a file nor a directory, if it has several; false when there is no
    /// room for more.
    pub fn add_name(&self, path: &[u8], stat: &Stat) -> bool {
        if stat.nlink < 2 {
            return true;
        }
        let mut linked = self.linked.lock();
        if linked.bytes.saturating_add(path.len()) > links::MAX_BYTES {
            return false;
        }
        linked.bytes += path.len();
        linked.groups.entry((stat.dev, stat.ino)).or_default().push(path.to_vec());
        true
    }

    /// All of it, as a snapshot keeps it, and how many special items that are.
    pub fn take(&self) -> Result<(Option<ByteBuf>, u64)> {
        let root = self.take_root();
        let root = root.as_deref().and_then(|bytes| Item::decode(&mut Reader::new(bytes)).ok()?.ok());
        let specials = self.take_specials();
        let groups = std::mem::take(&mut self.linked.lock().groups);
        let ext = snapshot::encode_ext(root.as_ref(), &specials, &links::sorted(groups.into_values()))?;
        Ok((ext, specials.len() as u64))
    }
}
