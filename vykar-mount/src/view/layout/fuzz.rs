//! Templates from anybody, and folders for snapshots with any names.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vykar_core::SnapshotId;

use crate::view::layout::{Layout, LayoutTarget, Listed, Numbers};
use crate::view::template::Template;

/// A line for a template, and one for each name that a snapshot then gets: host, label and name in turn. Lines that
/// are missing are empty.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let template: Option<Template> = lines.next().and_then(|line| line.parse().ok());
    let mut line = || lines.next().unwrap_or_default().to_owned();
    let mut snapshots = Vec::new();
    for number in 0..4u8 {
        snapshots.push(Listed {
            id: SnapshotId([number / 2; 32]),
            number: number.into(),
            time: Timestamp::from_second(i64::from(number / 2) * 1_000_000_007).unwrap_or_default(),
            host: line(),
            label: line(),
            name: line(),
        });
        // No two have the same id.
        snapshots[usize::from(number)].id.0[31] = number;
    }
    if let Some(template) = &template {
        assert_eq!(template.to_string().parse().as_ref(), Ok(template));
    }
    for templates in [vec![], template.into_iter().collect()] {
        let layout = Layout::build(&snapshots, &templates, &TimeZone::UTC, 0, &mut Numbers::default());
        check(&layout, snapshots.len());
    }
}

/// Every name can be one of a folder and is there once, and all snapshots are somewhere.
fn check(layout: &Layout, count: usize) {
    let mut shown = std::collections::HashSet::new();
    for folder in layout.folders.values() {
        assert!(layout.folders.contains_key(&folder.parent));
        for (name, target) in &folder.entries {
            assert!(!name.is_empty() && name.len() <= 255 && !name.contains(&b'/') && !name.contains(&0));
            assert!(!matches!(&**name, b"." | b".."));
            assert_eq!(folder.lookup(name), Some(*target));
            match target {
                LayoutTarget::Snapshot(number, _) => drop(shown.insert(*number)),
                LayoutTarget::Folder(number) => assert!(layout.folders.contains_key(number)),
                LayoutTarget::Latest(_) | LayoutTarget::Versions => {}
            }
        }
        assert!(folder.entries.windows(2).all(|pair| pair[0].0 < pair[1].0), "a name twice");
    }
    assert_eq!(shown.len(), count);
}
