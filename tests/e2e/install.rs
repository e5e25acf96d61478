//! What is installed beside the program: completions and manual pages.

use std::fs;
use std::process::Command;

use super::harness::{VYKAR, World, exit, note, project, silent};

fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[test]
fn completions_and_manual_pages_are_installed_and_sound() {
    let world = World::new();
    if !exists("make") {
        note("no make here: what it installs is not looked at");
        return;
    }
    let prefix = world.path("prefix");
    let variables = [format!("PREFIX={}", prefix.display()), format!("VYKAR={VYKAR}")];
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "-s", "-C"]).arg(project()).arg("install-extras").args(&variables);
    silent(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"));
    let share = prefix.join("share");
    for (shell, file) in [
        ("bash", "bash-completion/completions/vykar"),
        ("zsh", "zsh/site-functions/_vykar"),
        ("fish", "fish/vendor_completions.d/vykar.fish"),
    ] {
        let file = share.join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("change-passphrase") && text.contains("umount"), "{shell}");
        match exists(shell) {
            true => silent(Command::new(shell).arg("-n").arg(&file)),
            false => note(&format!("no {shell} here: its completion is not tried")),
        }
    }
    let bash = share.join("bash-completion/completions/vykar");
    let asks = "source \"$1\" && COMP_WORDS=(vykar key ex) COMP_CWORD=2 && _vykar vykar ex key && \
                [ \"${COMPREPLY[*]}\" = export ]";
    silent(Command::new("bash").args(["-c", asks, "bash"]).arg(&bash));

    let pages = share.join("man/man1");
    for page in ["vykar.1", "vykar-backup.1", "vykar-key-export.1", "vykar-snapshot-delete.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
    assert!(!pages.join("vykar-man.1").exists());
    let text = fs::read_to_string(pages.join("vykar-key-import.1")).unwrap();
    assert!(text.contains(".SH EXAMPLES\n") && text.contains("\\-\\-replace"), "{text}");
    assert!(!text.contains("upload"), "what every command takes is in one page: {text}");
    if !exists("man") {
        note("no man here: the pages are not read by it");
        return;
    }
    for page in fs::read_dir(&pages).unwrap() {
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(page.unwrap().path());
        let output = man.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{man:?}: {said}");
    }
}

#[test]
fn completions_need_no_repository_and_no_configuration() {
    let world = World::new();
    fs::write(world.path("vykar.yaml"), "nonsense: [").unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let mut command = world.command();
        command.args(["completions", shell]);
        world.finish(command).ok();
    }
    let mut command = world.command();
    command.args(["completions", "tcsh"]);
    world.finish(command).exits(exit::USAGE);
    let mut command = world.command();
    command.args(["man", "/dev/null/pages"]);
    world.finish(command).exits(exit::FAILURE).one_message();
}
