use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use vykar_core::format::{Encryption, KdfParams};
use vykar_core::inspect::{RepositoryInfo, info};

use super::break_lock::{standing, state};
use super::{print, print_json};
use crate::args::ResolvedOptions;
use crate::exit::{CliResult, Exit};
use crate::{context, render};

pub fn run(global: &ResolvedOptions, json: bool) -> CliResult {
    let info = info(&context::open(global)?)?;
    match json {
        true => print_json(&info_json(&info))?,
        false => print(&text(&info)),
    }
    if info.snapshots.damaged == 0 {
        return Ok(Exit::Success);
    }
    say!("{} snapshots are damaged; `vykar list` names them", info.snapshots.damaged);
    Ok(Exit::Damaged)
}

/// Name and value, a line each.
struct InfoLines(String);

impl InfoLines {
    fn add(&mut self, name: &str, value: impl AsRef<str>) {
        let _ = writeln!(self.0, "{name:<18}{}", value.as_ref());
    }
}

fn text(info: &RepositoryInfo) -> String {
    let mut lines = InfoLines(String::new());
    identity(info, &mut lines);
    snapshots(info, &mut lines);
    stored(info, &mut lines);
    for lock in &info.locks {
        lines.add(
            "Lock",
            format!("{}: {}", render::plain(lock.describe().as_bytes()), standing(lock.standing)),
        );
    }
    for session in &info.sessions {
        let who = render::plain(session.describe().as_bytes());
        lines.add("Backup", format!("{who}: {}", standing(session.standing)));
    }
    if let Some((path, size)) = &info.cache {
        lines.add("Local cache", format!("{}, {}", render::path(path), render::size(*size)));
    }
    lines.0
}

fn identity(info: &RepositoryInfo, lines: &mut InfoLines) {
    let config = &info.config;
    lines.add("Repository", render::plain(info.url.as_bytes()));
    lines.add("Id", config.id.to_string());
    lines.add("Made", render::stored_time(&config.created));
    lines.add("Format", format!("layout {}", config.version));
    let encryption = match config.encryption {
        Encryption::None => "none: whoever reads the repository can read what is in it".to_owned(),
        cipher => cipher.to_string(),
    };
    lines.add("Encryption", encryption);
    if let Some(key) = &info.key {
        lines.add("Key", key_text(key));
    }
    let chunker = config.chunker;
    let [min, avg, max] = [chunker.min, chunker.avg, chunker.max].map(|n| render::size(n.into()));
    lines.add("Chunk sizes", format!("{min} to {max}, {avg} on average"));
    let [min, max] = [config.min_pack_size, config.max_pack_size].map(|n| render::size(n.into()));
    lines.add("Pack sizes", format!("{min} to {max}"));
}

fn key_text(key: &KdfParams) -> String {
    let memory = render::size(u64::from(key.memory_cost) << 10);
    let (algorithm, passes, lanes) = (&key.algorithm, key.time_cost, key.parallelism);
    format!("protected by a passphrase ({algorithm}, {passes} passes over {memory}, {lanes} lanes)")
}

fn snapshots(info: &RepositoryInfo, lines: &mut InfoLines) {
    let all = &info.snapshots;
    let mut count = all.readable.to_string();
    for (n, what) in [(all.damaged, "damaged"), (all.newer, "of a newer version")] {
        if n > 0 {
            let _ = write!(count, ", and {n} {what}");
        }
    }
    lines.add("Snapshots", count);
    for (name, time) in [("Oldest", all.oldest), ("Newest", all.newest)] {
        if let Some(time) = time {
            lines.add(name, render::time(time));
        }
    }
    for (name, values) in [("Hosts", &all.hosts), ("Labels", &all.labels)] {
        if !values.is_empty() {
            lines.add(name, counted(values));
        }
    }
    lines.add("All snapshots", format!("{} in {} files", render::size(all.size), all.files));
}

fn counted(values: &BTreeMap<String, u64>) -> String {
    let each = values.iter().map(|(name, n)| format!("{} ({n})", render::plain(name.as_bytes())));
    each.collect::<Vec<_>>().join(", ")
}

fn stored(info: &RepositoryInfo, lines: &mut InfoLines) {
    let stored = &info.stored;
    for (name, ratio) in [("Compression", info.compression()), ("Deduplication", info.deduplication())] {
        if let Some(ratio) = ratio {
            lines.add(name, format!("{ratio:.2} to 1"));
        }
    }
    lines.add("Chunks", format!("{} in {}", render::size(stored.chunk_bytes), stored.chunks));
    lines.add("Packs", format!("{} in {}", render::size(stored.pack_bytes), stored.packs));
    let hint = if stored.unreferenced > 0 { "; `vykar compact` gives back what is not in use" } else { "" };
    lines.add("Not in the index", format!("{}{hint}", render::size(stored.unreferenced)));
    lines.add("Index", render::size(stored.index_bytes));
    let ratio = info.total_ratio().map(|ratio| format!(", {ratio:.2} to 1 of all snapshots"));
    let (size, objects) = (render::size(stored.bytes), stored.objects);
    lines.add("Everything", format!("{size} in {objects} objects{}", ratio.unwrap_or_default()));
    if stored.journals > 0 {
        lines.add("Unfinished", format!("{} backups left what the next one takes up", stored.journals));
    }
}

fn info_json(info: &RepositoryInfo) -> Value {
    let (config, snapshots, stored) = (&info.config, &info.snapshots, &info.stored);
    let key = |key: &KdfParams| {
        json!({
            "algorithm": key.algorithm,
            "time_cost": key.time_cost,
            "memory_cost_kib": key.memory_cost,
            "parallelism": key.parallelism,
        })
    };
    let locks = info
        .locks
        .iter()
        .map(|l| json!({ "key": l.key, "holder": l.describe(), "state": state(l.standing) }));
    let sessions = info
        .sessions
        .iter()
        .map(|s| json!({ "key": s.marker_key(), "holder": s.describe(), "state": state(s.standing) }));
    json!({
        "url": info.url,
        "id": config.id.to_string(),
        "version": config.version,
        "created": config.created,
        "encryption": config.encryption.to_string(),
        "key": info.key.as_ref().map(key),
        "chunker": { "min": config.chunker.min, "avg": config.chunker.avg, "max": config.chunker.max },
        "min_pack_size": config.min_pack_size,
        "max_pack_size": config.max_pack_size,
        "snapshots": {
            "readable": snapshots.readable,
            "damaged": snapshots.damaged,
            "newer": snapshots.newer,
            "oldest": snapshots.oldest.map(|time| time.to_string()),
            "newest": snapshots.newest.map(|time| time.to_string()),
            "hosts": snapshots.hosts,
            "labels": snapshots.labels,
            "files": snapshots.files,
            "size": snapshots.size,
            "compressed_size": snapshots.compressed_size,
        },
        "stored": {
            "chunks": stored.chunks,
            "chunk_bytes": stored.chunk_bytes,
            "packs": stored.packs,
            "pack_bytes": stored.pack_bytes,
            "unreferenced": stored.unreferenced,
            "index_bytes": stored.index_bytes,
            "journals": stored.journals,
            "objects": stored.objects,
            "bytes": stored.bytes,
        },
        "compression_ratio": info.compression(),
        "deduplication_ratio": info.deduplication(),
        "total_ratio": info.total_ratio(),
        "locks": locks.collect::<Vec<_>>(),
        "sessions": sessions.collect::<Vec<_>>(),
        "cache": info.cache.as_ref().map(|(path, size)| json!({ "path": path.to_string_lossy(), "bytes": size })),
    })
}
