//! What workers are given to do, and where they leave what became of it.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::backup::pipeline::encoded_items::Encoded;
use crate::backup::pipeline::walk::Draft;
use crate::backup::source::command::Stream;
use crate::backup::source::entry::{OwnedXattrs, Stat};
use crate::format::ChunkRef;

/// A value that one thread sets and others wait for.
pub struct Slot<T> {
    value: Mutex<Option<T>>,
    ready: Condvar,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot { value: Mutex::new(None), ready: Condvar::new() }
    }
}

impl<T> Slot<T> {
    /// Sets it, unless it is.
    pub fn set(&self, value: T) {
        let mut slot = self.value.lock();
        if slot.is_none() {
            *slot = Some(value);
            self.ready.notify_all();
        }
    }

    /// Waits until it is set.
    pub fn wait<U>(&self, take: impl FnOnce(&mut T) -> U) -> U {
        let mut slot = self.value.lock();
        loop {
            match &mut *slot {
                Some(value) => return take(value),
                None => self.ready.wait(&mut slot),
            }
        }
    }
}

/// The items of a job.
pub type JobSlot = Slot<Encoded>;

/// The content of a file of several names; `None` when it was not stored, which has been reported and counted.
pub type ContentSlot = Slot<Option<Arc<FileData>>>;

/// A file's content and metadata without its name.
pub struct FileData {
    pub chunks: Vec<ChunkRef>,
    pub stat: Stat,
    pub xattrs: OwnedXattrs,
    /// It may be remembered as read.
    pub has_record: bool,
}

/// A part of a job, in the order of the items.
pub enum WorkPart {
    /// Items that are encoded already.
    Encoded(Encoded),
    /// A file to be read.
    File(Draft),
    /// A stream to be read.
    Stream(Stream),
}

/// A name of a file that has several; its job has no other part.
pub enum Link {
    /// The name under which the file is read.
    First(Arc<ContentSlot>),
    /// Another one, whose job was sent after that of the first.
    Other(Arc<ContentSlot>),
}

/// Some files, with what lies between them.
pub struct WorkItem {
    pub parts: Vec<WorkPart>,
    pub slot: Arc<JobSlot>,
    pub link: Option<Link>,
}

impl Drop for WorkItem {
    fn drop(&mut self) {
        // A job that nobody could do (the backup ends) must not be waited for.
        self.slot.set(Encoded::default());
        if let Some(Link::First(content)) = &self.link {
            content.set(None);
        }
    }
}
