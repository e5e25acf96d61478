use vykar_core::Event;
use vykar_core::maintenance::{CheckOptions, Severity, check};

use super::print;
use crate::args::Global;
use crate::exit::{CliResult, Exit};
use crate::{context, render};

pub fn run(global: &Global, verify_data: bool) -> CliResult {
    let repository = context::open(global)?;
    let options = CheckOptions { verify_data, subset: None, threads: global.threads };
    let mut listen = |event: Event| render::event(&event);
    let report = check(&repository, &options, Some(&mut listen))?;
    for finding in &report.findings {
        let kind = match finding.severity() {
            Severity::Damage => "damage",
            Severity::Newer => "newer",
            Severity::Harmless => "note",
        };
        print(&format!("{kind}: {finding}\n"));
    }
    if report.unlisted() > 0 {
        print(&format!("... and {} more\n", report.unlisted()));
    }
    if !global.quiet {
        let what = match verify_data {
            true => format!("{} of packs read and verified", render::size(report.bytes_verified)),
            false => "metadata only; --verify-data reads everything".to_owned(),
        };
        print(&format!(
            "Checked {} snapshots, {} items, {} chunks, {} packs ({what}): {}\n",
            report.snapshots,
            report.items,
            report.chunks,
            report.packs,
            match report.damage {
                0 => "no damage".to_owned(),
                n => format!("{n} problems"),
            },
        ));
    }
    if report.changed_meanwhile {
        eprintln!("vykar: the repository changed while it was checked; counts may be off, so check again");
    }
    Ok(if report.damage > 0 { Exit::Damaged } else { Exit::Success })
}
