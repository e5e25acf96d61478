//! What a folder shows.

use std::collections::HashSet;
use std::sync::Arc;

use super::Versions;
use super::history::History;
use super::paths::TOP;
use super::timeline::VersionsTimeline;
use crate::errno::FsError;
use crate::tree::NodeId;
use crate::view::inode::TARGET_MAX;
use crate::view::layout::LATEST;
use crate::view::names::fnv1a;

/// A folder: the directory of this path, where any snapshot has one, and the versions of the file of this path,
/// where any snapshot has one.
pub(crate) struct VersionsListing {
    /// Its place among the folders that were looked at.
    pub(crate) place: u32,
    children: Option<Arc<History>>,
    versions: Vec<NamedEntry>,
    /// Which of the versions is the latest, where there are versions and the name is free.
    latest: Option<usize>,
    /// There may be more, which cannot be read.
    pub(crate) is_partial: bool,
}

struct NamedEntry {
    name: Vec<u8>,
    section: u32,
    node: NodeId,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member<'l> {
    /// A folder.
    Folder,
    /// A version: this node of the tree of this section.
    Version(u32, NodeId),
    /// A symlink to the version of this name.
    Latest(&'l [u8]),
}

impl Versions {
    /// What the folder at this place shows.
    ///
    /// # Errors
    /// [`FsError::Stale`] when no snapshot has anything of this path, [`FsError::Io`] when a part of it cannot be read now.
    pub(crate) fn list(&self, timeline: &VersionsTimeline, place: u32) -> Result<VersionsListing, FsError> {
        if place == TOP {
            let children = self.history(timeline, TOP)?;
            let is_partial = timeline.partial || children.partial;
            let children = Some(children);
            return Ok(VersionsListing { place, children, versions: Vec::new(), latest: None, is_partial });
        }
        let (parent, name) = {
            let folders = self.folders.read();
            (folders.paths.parent(place), folders.paths.name(place).to_vec())
        };
        let above = self.history(timeline, parent)?;
        let is_partial = timeline.partial || above.partial;
        let nothing = if is_partial { FsError::Damaged } else { FsError::Stale };
        let entry = above.find(&name).ok_or(nothing)?;
        let children = if entry.is_dir { Some(self.history(timeline, place)?) } else { None };
        let is_taken = |name: &[u8]| children.as_ref().is_some_and(|children| children.find(name).is_some());
        let mut used: HashSet<Vec<u8>> = HashSet::new();
        let versions = entry.versions.iter().map(|version| {
            let time = timeline.moments.get(version.moment as usize).map_or(&[][..], |moment| &moment.name);
            let suffixed = (2u32..).map(|n| [time, format!("-{n}").as_bytes()].concat());
            let mut names = std::iter::once(time.to_vec()).chain(suffixed);
            // There are fewer names than numbers.
            let name = names.find(|name| !is_taken(name) && used.insert(name.clone())).unwrap_or_default();
            NamedEntry { name, section: version.section, node: version.node }
        });
        let versions: Vec<_> = versions.collect();
        let latest = (!versions.is_empty() && !is_taken(LATEST.as_bytes())).then_some(entry.latest);
        let is_partial = is_partial || children.as_ref().is_some_and(|children| children.partial);
        Ok(VersionsListing { place, children, versions, latest, is_partial })
    }
}

impl VersionsListing {
    /// An entry by its place in the listing.
    pub(crate) fn get(&self, at: usize) -> Option<(&[u8], Member<'_>)> {
        let children = self.children.as_ref().map_or(0, |children| children.len());
        let Some(behind) = at.checked_sub(children) else {
            return Some((self.children.as_ref()?.get(at)?.name, Member::Folder));
        };
        match self.versions.get(behind) {
            Some(version) => Some((&version.name, Member::Version(version.section, version.node))),
            None if behind == self.versions.len() => {
                Some((LATEST.as_bytes(), Member::Latest(self.target()?)))
            }
            None => None,
        }
    }

    /// An entry by its name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<Member<'_>> {
        if self.children.as_ref().is_some_and(|children| children.find(name).is_some()) {
            return Some(Member::Folder);
        }
        if name == LATEST.as_bytes() {
            return self.target().map(Member::Latest);
        }
        let version = self.versions.iter().find(|version| version.name == name)?;
        Some(Member::Version(version.section, version.node))
    }

    /// Where `latest` points.
    pub(crate) fn target(&self) -> Option<&[u8]> {
        Some(&self.versions.get(self.latest?)?.name)
    }
}

/// Hash of a target, for the number of a `latest`.
pub(crate) fn target_hash(target: &[u8]) -> u32 {
    let hash = fnv1a(target);
    (hash ^ hash >> 32) as u32 & TARGET_MAX
}
