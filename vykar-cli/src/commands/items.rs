//! `snapshot list`: the items of a snapshot.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};
use vykar_core::format::{Item, ItemType, path};
use vykar_core::repository::RefreshingReader;
use vykar_core::repository::read::items::{FoundItem, Loss, for_each_item};

use super::stdout_failed;
use crate::args::{ItemsArgs, ResolvedOptions, SortBy};
use crate::exit::{CliError, CliResult, Exit};
use crate::progress::Room;
use crate::{context, render, say};

pub fn run(global: &ResolvedOptions, args: &ItemsArgs) -> CliResult {
    let repository = context::open(global)?;
    let manifest = repository.manifest()?;
    let snapshot = manifest.resolve(&args.snapshot)?;
    let reader = RefreshingReader::new(&repository)?;
    let top = args.path.as_ref().map(|typed| path::plain(typed.as_os_str().as_bytes())).unwrap_or_default();
    let mut lines = ItemLines { args, out: BufWriter::new(std::io::stdout().lock()), kept: Vec::new() };
    let (mut damaged, mut met, mut out_of_reach) = (false, false, false);
    let room = Room::of(global);
    for_each_item(&reader, snapshot, &mut |found| {
        match found {
            FoundItem::Item(item) if path::is_within(item.path_bytes(), &top) => {
                met = true;
                return Ok(lines.add(&item));
            }
            FoundItem::Item(_) => {}
            FoundItem::Problem(problem) => {
                if room.take() {
                    say!("{}: left out: {problem}", render::plain(problem.path().as_bytes()));
                }
                damaged = true;
            }
            FoundItem::Lost(Loss { reason, may_come_back }) => {
                out_of_reach |= may_come_back;
                say!("snapshot {}: {reason}", snapshot.id.short());
                damaged = true;
            }
        }
        Ok(true)
    })?;
    lines.finish();
    let exit = Exit::of_reading(!damaged, out_of_reach);
    if met || top.is_empty() {
        return Ok(exit);
    }
    let (name, path) = (render::plain(snapshot.meta.name.as_bytes()), render::plain(&top));
    let exit = if damaged { exit } else { Exit::Failure };
    Err(CliError::new(exit, format!("snapshot {name}: {path}: not in the snapshot"))
        .hint(format!("`vykar snapshot list {name}` shows what there is")))
}

/// Where a line stands among others.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SortKey {
    Path,
    Size(Reverse<u64>),
    Mtime(Reverse<i64>),
}

/// ItemLines on their way to stdout: at once, or sorted at the end.
struct ItemLines<'a, W: Write> {
    args: &'a ItemsArgs,
    out: W,
    kept: Vec<(SortKey, Vec<u8>, String)>,
}

impl<W: Write> ItemLines<'_, W> {
    /// False when nobody reads on.
    fn add(&mut self, item: &Item<'_>) -> bool {
        let line = match self.args {
            ItemsArgs { json: true, .. } => item_json(item).to_string(),
            ItemsArgs { long: true, .. } => long(item),
            _ => render::plain(item.path_bytes()),
        };
        let key = match self.args.sort {
            None => return self.write(&line),
            Some(SortBy::Name) => SortKey::Path,
            Some(SortBy::Size) => SortKey::Size(Reverse(item.size)),
            Some(SortBy::Mtime) => SortKey::Mtime(Reverse(item.mtime)),
        };
        self.kept.push((key, item.path_bytes().to_vec(), line));
        true
    }

    fn write(&mut self, line: &str) -> bool {
        let line = match self.args.json {
            true => say::json_line(line),
            false => say::clean(line).into_owned().into_bytes(),
        };
        let written = self.out.write_all(&line).and_then(|()| self.out.write_all(b"\n"));
        let goes_on = written.is_ok();
        written.unwrap_or_else(stdout_failed);
        goes_on
    }

    fn finish(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.sort_unstable();
        if kept.into_iter().all(|(_, _, line)| self.write(&line)) {
            self.out.flush().unwrap_or_else(stdout_failed);
        }
    }
}

/// A line as `ls -l` has it.
fn long(item: &Item<'_>) -> String {
    let owner = |name: &Option<_>, id: u32| match name.as_deref() {
        Some(name) if !str::is_empty(name) => render::plain(name.as_bytes()),
        _ => id.to_string(),
    };
    let (user, group) = (owner(&item.user, item.uid), owner(&item.group, item.gid));
    let mut line = format!(
        "{} {user:<8} {group:<8} {:>12} {} {}",
        render::mode(item.kind, item.mode),
        item.size,
        render::nanoseconds(item.mtime),
        render::plain(item.path_bytes()),
    );
    if let Some(target) = item.target_bytes() {
        let _ = write!(line, " -> {}", render::plain(target));
    }
    line
}

/// Puts a path under a name, for display; where that is not exact, its bytes in hex under `NAME_bytes` too.
pub fn put_path(map: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if matches!(text, Cow::Owned(_)) {
        map.insert(format!("{name}_bytes"), json!(HEXLOWER.encode(bytes)));
    }
    map.insert(name.to_owned(), json!(text));
}

/// One item as JSON. `path` and `target` are for display; where they are not exact, `path_bytes`
/// and `target_bytes` hold the bytes in hex. Attribute values are always in hex.
fn item_json(item: &Item<'_>) -> Value {
    let mut map = Map::new();
    put_path(&mut map, "path", item.path_bytes());
    if let Some(target) = item.target_bytes() {
        put_path(&mut map, "target", target);
    }
    let mut put = |name: &str, value: Value| drop(map.insert(name.to_owned(), value));
    put("type", json!(kind_name(item.kind)));
    put("mode", json!(item.permissions()));
    put("uid", json!(item.uid));
    put("gid", json!(item.gid));
    put("user", json!(item.user));
    put("group", json!(item.group));
    put("size", json!(item.size));
    if matches!(item.kind, ItemType::CharDevice | ItemType::BlockDevice) {
        put("rdev", json!(item.rdev));
    }
    put("mtime", json!(item.mtime));
    put("atime", json!(item.atime));
    put("ctime", json!(item.ctime));
    if let Some(xattrs) = &item.xattrs {
        let values = xattrs.iter().map(|(name, value)| (name.to_string(), json!(HEXLOWER.encode(value))));
        put("xattrs", Value::Object(values.collect()));
    }
    if let Some((dev, ino)) = item.hardlink {
        put("hardlink", json!([dev, ino]));
    }
    Value::Object(map)
}

/// What a kind of item is called.
pub fn kind_name(kind: ItemType) -> &'static str {
    match kind {
        ItemType::RegularFile => "file",
        ItemType::Directory => "directory",
        ItemType::Symlink => "symlink",
        ItemType::Fifo => "fifo",
        ItemType::Socket => "socket",
        ItemType::CharDevice => "char-device",
        ItemType::BlockDevice => "block-device",
    }
}
