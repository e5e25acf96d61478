//! Cutting the files into tasks, in the order their content lies in the packs.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::plan::{PlannedPiece, RestorePlan};
use super::settle::Fresh;
use super::shared::Writes;
use super::tree::{FileContent, NodeKind};

/// Files in one task at most.
const MAX_FILES: usize = 256;
/// Plaintext bytes in one task, so that well compressed ones do not last too long.
const MAX_PLAIN: u64 = 64 << 20;

/// A file being written, by one task or by several.
pub(super) struct OutputFile {
    pub node: u32,
    pub content: FileContent,
    pub file: Mutex<FileState>,
    /// Tasks that still have a part of it.
    pub remaining: AtomicUsize,
    /// Reported, and to be removed.
    pub failed: AtomicBool,
    /// Something was left out as a hole.
    pub holes: AtomicBool,
    /// What several tasks write into it.
    pub writes: Writes,
}

/// Whether a file was created.
pub(super) enum FileState {
    /// No task has come to it.
    NotYet,
    /// By the first task that did.
    Created(Arc<Fresh>),
    /// That failed.
    Failed,
}

/// Pieces of one file.
pub(super) struct FilePart {
    pub output: Arc<OutputFile>,
    /// Which of the plan's pieces.
    pub pieces: Range<usize>,
    /// Where they begin in the file.
    pub offset: u64,
    /// The file has other parts, which other threads may write at the same time.
    pub shared: bool,
}

/// What a thread does in one go.
pub(super) type RestoreTask = Vec<FilePart>;

/// Hands out tasks.
pub(super) struct TaskQueue<'p> {
    plan: &'p RestorePlan,
    /// Stored bytes in one task, unless one chunk alone is larger.
    budget: u64,
    files: VecDeque<u32>,
    /// Of a file too large for one task.
    parts: VecDeque<FilePart>,
}

impl<'p> TaskQueue<'p> {
    /// All files of the plan for which `wanted` holds.
    pub fn new(plan: &'p RestorePlan, budget: u64, wanted: impl Fn(u32) -> bool) -> Self {
        let table = &plan.index.chunks;
        let mut files = Vec::new();
        for number in plan.tree.numbers().filter(|n| wanted(*n)) {
            let Some(content) = content(plan, number) else { continue };
            let place = plan.pieces(&content).first().map(|piece| {
                let slot = piece.slot as usize;
                (table.pack_number(slot), table.entry(slot).offset)
            });
            files.push((place, number));
        }
        // Same place or none: as the snapshot has them.
        files.sort_unstable();
        TaskQueue { plan, budget, files: files.into_iter().map(|f| f.1).collect(), parts: VecDeque::new() }
    }

    /// A single file.
    pub fn one(plan: &'p RestorePlan, budget: u64, number: u32) -> Self {
        TaskQueue { plan, budget, files: VecDeque::from([number]), parts: VecDeque::new() }
    }

    /// The next task.
    pub fn next(&mut self) -> Option<RestoreTask> {
        if let Some(part) = self.parts.pop_front() {
            return Some(vec![part]);
        }
        let mut task = RestoreTask::new();
        let (mut stored, mut plain) = (0u64, 0u64);
        while task.len() < MAX_FILES {
            let Some(number) = self.files.front().copied() else { break };
            let Some(content) = content(self.plan, number) else {
                self.files.pop_front();
                continue;
            };
            let size = self.stored(&content);
            if !task.is_empty()
                && (stored + size > self.budget || plain.saturating_add(content.size) > MAX_PLAIN)
            {
                break;
            }
            self.files.pop_front();
            if task.is_empty() && (size > self.budget || content.size > MAX_PLAIN) {
                self.parts = self.split(number, content);
                return self.parts.pop_front().map(|part| vec![part]);
            }
            stored += size;
            plain += content.size;
            task.push(part(&output(number, content, 1), content.first..content.first + content.count, 0));
        }
        (!task.is_empty()).then_some(task)
    }

    fn stored(&self, content: &FileContent) -> u64 {
        self.plan.pieces(content).iter().map(|piece| self.stored_size(piece)).sum()
    }

    fn stored_size(&self, piece: &PlannedPiece) -> u64 {
        self.plan.index.chunks.entry(piece.slot as usize).stored_size.into()
    }

    fn split(&self, number: u32, content: FileContent) -> VecDeque<FilePart> {
        let mut cuts = Vec::new();
        let (mut from, mut from_offset, mut offset) = (content.first, 0u64, 0u64);
        let mut stored = 0;
        for (at, piece) in (content.first..).zip(self.plan.pieces(&content)) {
            let (next, plain) = (self.stored_size(piece), u64::from(piece.size));
            if at > from && (stored + next > self.budget || offset - from_offset + plain > MAX_PLAIN) {
                cuts.push((from..at, from_offset));
                (from, from_offset, stored) = (at, offset, 0);
            }
            stored += next;
            offset += plain;
        }
        cuts.push((from..content.first + content.count, from_offset));
        let output = output(number, content, cuts.len());
        cuts.into_iter().map(|(pieces, offset)| part(&output, pieces, offset)).collect()
    }
}

fn content(plan: &RestorePlan, number: u32) -> Option<FileContent> {
    match plan.tree.node(number).kind {
        NodeKind::File(content) | NodeKind::Link { content, .. } => Some(content),
        _ => None,
    }
}

fn output(node: u32, content: FileContent, parts: usize) -> Arc<OutputFile> {
    Arc::new(OutputFile {
        node,
        content,
        file: Mutex::new(FileState::NotYet),
        remaining: AtomicUsize::new(parts),
        failed: AtomicBool::new(false),
        holes: AtomicBool::new(false),
        writes: Writes::default(),
    })
}

fn part(output: &Arc<OutputFile>, pieces: Range<usize>, offset: u64) -> FilePart {
    let shared = output.remaining.load(Ordering::Relaxed) > 1;
    FilePart { output: output.clone(), pieces, offset, shared }
}
