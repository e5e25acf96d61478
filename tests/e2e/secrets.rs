//! Nobody gets to know a passphrase who does not need it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::harness::{VYKAR, World, eventually, is_mounted, wait};

const OLD: &str = "unmistakable-ee5a1c";
const NEW: &str = "unmistakable-77d0b3";

/// All processes below this one, with their parents among them.
fn descendants(of: u32) -> Vec<u32> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![of];
    let mut at = 0;
    while let Some(above) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, parent)| **parent == above).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// What anybody may see who may look into processes. The program itself has its passphrase from its environment, and a
/// process that it has just forked has that too, until it is another program.
fn look(child: &Child, seen: &mut Vec<String>) {
    let read = |pid: u32, what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
    seen.push(text(read(child.id(), "cmdline")));
    for pid in descendants(child.id()) {
        // First: once it is another program, it has an environment of its own.
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let line = text(read(pid, "cmdline"));
        if exe != Path::new(VYKAR) || line.starts_with("vykar-watchdog") {
            seen.push(format!("{line} | {}", text(read(pid, "environ"))));
        }
    }
}

fn hides_all(seen: &[String], expected: &[&str]) {
    let all = seen.join("\n");
    for word in expected {
        assert!(all.contains(word), "{word} never ran:\n{all}");
    }
    for secret in [OLD, NEW] {
        let found: Vec<_> = seen.iter().filter(|text| text.contains(secret)).collect();
        assert!(found.is_empty(), "{found:#?}");
    }
}

impl World {
    fn runs_unseen(&self, args: &[&str], variables: &[(&str, &str)], seen: &mut Vec<String>) {
        let mut command = self.command();
        command.env_remove("VYKAR_PASSPHRASE").envs(variables.iter().copied()).args(args);
        self.finish_watched(command, &mut |child| look(child, seen)).ok();
    }
}

#[test]
fn no_passphrase_is_in_the_arguments_or_the_environment_of_a_child() {
    let world = World::new();
    world.folder("data");
    let tell = |what: &str| format!("echo {what} >> told; env >> told; sleep 0.2");
    let yaml = format!(
        "repositories: [{{url: repo, encryption: {{mode: aes256gcm}}}}]\n\
         sources:\n  - {{label: data, path: data}}\n  - {{label: dump, command_dumps: [{{name: x, command: '{}'}}]}}\n\
         hooks: {{before: '{}', finally: '{}'}}\n",
        tell("a dump"),
        tell("a hook before"),
        tell("a hook at the end"),
    );
    fs::write(world.path("vykar.yaml"), yaml).unwrap();
    let mut seen = Vec::new();
    let old = ("VYKAR_PASSPHRASE", OLD);
    world.runs_unseen(&["init"], &[old], &mut seen);
    world.runs_unseen(&[], &[old], &mut seen);
    fs::write(world.path("old"), OLD).unwrap();
    fs::write(world.path("new"), NEW).unwrap();
    // One that is asked for one of the two does not learn the other from the environment.
    let (get_new, get_old) = (tell("for the new one") + "; cat new", tell("for the old one") + "; cat old");
    let change = ["key", "change-passphrase", "--new-passcommand", &get_new];
    world.runs_unseen(&change, &[old], &mut seen);
    fs::write(world.path("old"), NEW).unwrap();
    let change = ["--passcommand", &get_old, "key", "change-passphrase"];
    world.runs_unseen(&change, &[("VYKAR_NEW_PASSPHRASE", OLD)], &mut seen);
    let told = fs::read_to_string(world.path("told")).unwrap();
    let programs = ["a dump", "a hook before", "a hook at the end", "for the new one", "for the old one"];
    hides_all(&[told], &programs);
    hides_all(&seen, &programs);
    assert!(!fs::read_to_string(world.path("told")).unwrap().contains("VYKAR_PASSPHRASE"));
}

#[test]
fn what_watches_a_mount_has_no_passphrase() {
    needs!(mounts);
    let mut world = World::new();
    world.passphrase = OLD.to_owned();
    world.run(["init"]).ok();
    let at: PathBuf = world.mountpoint("at");
    let mut command: Command = world.command();
    command.arg("-R").arg(&world.repo).arg("mount").arg(&at);
    let mut child = command.spawn().unwrap();
    let mut seen = Vec::new();
    eventually("a mount", || {
        look(&child, &mut seen);
        is_mounted(&at)
    });
    eventually("its watchdog", || {
        look(&child, &mut seen);
        seen.iter().any(|line| line.starts_with("vykar-watchdog"))
    });
    let mut umount = world.command();
    umount.arg("umount").arg(&at);
    world.finish(umount).ok();
    assert!(wait(&mut child, Duration::from_secs(30)).is_some());
    hides_all(&seen, &["vykar-watchdog"]);
}
