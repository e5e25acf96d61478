//! Examples, shown at the end of a command's help and in its manual page. A test parses each.

pub const VYKAR: &str = "\
Examples:
  vykar -R /srv/backup init                       a repository in this folder
  vykar -R /srv/backup backup /home /etc
  vykar -R /srv/backup mount /mnt                 all snapshots as folders
  vykar -R /srv/backup restore latest /tmp/out etc/fstab
  vykar config > vykar.yaml                       a configuration to begin with
  vykar                                           what the configuration says";

pub const INIT: &str = "\
Examples:
  vykar -R /srv/backup init
  vykar -R /srv/backup init --passphrase-file /root/passphrase
  vykar -R /mnt/disk/backup init --encryption chacha20poly1305 --max-pack-size 64M
  vykar init                                      all that are configured";

pub const BACKUP: &str = "\
Examples:
  vykar -R REPO backup /home --exclude '*.o' --exclude .cache/
  vykar -R REPO backup / --one-file-system --exclude-caches --label system
  vykar -R REPO backup ~/work --git-ignore --dry-run
  vykar -R REPO backup --files-from list.txt
  find ~/work -newer mark -print0 | vykar -R REPO backup --files-from - --null
  pg_dump shop | vykar -R REPO backup --stdin --stdin-name shop.sql --label shop
  vykar -R REPO backup --stdin-from-command --stdin-name shop.sql -- pg_dump shop
  vykar backup --source docs                      one source of the configuration";

pub const SNAPSHOT: &str = "\
Examples:
  vykar -R REPO snapshot list latest
  vykar -R REPO snapshot info 8c2f";

pub const SNAPSHOT_DELETE: &str = "\
Examples:
  vykar -R REPO snapshot delete 8c2f 91ab --dry-run
  vykar -R REPO snapshot delete 8c2f 91ab";

pub const SNAPSHOT_INFO: &str = "\
Examples:
  vykar -R REPO snapshot info latest
  vykar -R REPO snapshot info 8c2f --json";

pub const RESTORE: &str = "\
Examples:
  vykar -R REPO restore latest /tmp/out
  vykar -R REPO restore latest /tmp/out etc/fstab home/ada/letters
  vykar -R REPO restore 8c2f /mnt --numeric-ids";

pub const PRUNE: &str = "\
Examples:
  vykar -R REPO prune --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run --list
  vykar -R REPO prune --keep-within 30d --keep-yearly 10
  vykar -R REPO prune --keep-last 3 --host nas --label photos
  vykar prune                                     as the configuration says";

pub const COMPACT: &str = "\
Examples:
  vykar -R REPO compact --dry-run
  vykar -R REPO compact
  vykar -R REPO compact --threshold 50 --max-repack-size 20G";

pub const INFO: &str = "\
Examples:
  vykar -R REPO info
  vykar -R REPO info --json";

pub const DELETE: &str = "\
Examples:
  vykar -R /srv/backup delete --dry-run
  vykar -R /srv/backup delete
  vykar -R /srv/backup delete --confirm /srv/backup";

pub const CHECK: &str = "\
Examples:
  vykar -R REPO check
  vykar -R REPO check --verify-data
  vykar -R REPO check --read-data-subset 5%
  vykar -R REPO check --repair --dry-run";

pub const BREAK_LOCK: &str = "\
Examples:
  vykar -R REPO break-lock --dry-run
  vykar -R REPO break-lock --sessions";

pub const REWRITE: &str = "\
Examples:
  vykar -R REPO rewrite latest --exclude /home/ada/secret.txt --dry-run
  vykar -R REPO rewrite 8c2f 91ab --exclude '*.iso' --exclude .cache/ --forget
  vykar -R REPO rewrite latest --exclude-file rules.txt --json";

pub const COPY: &str = "\
Examples:
  vykar -R REPO copy --to /mnt/disk/backup
  vykar -R REPO copy --to offsite --label photos --last 3 --dry-run
  vykar -R REPO copy latest --to /mnt/disk/backup --to-passphrase-file /root/disk-passphrase";

pub const KEY: &str = "\
Examples:
  vykar -R REPO key change-passphrase
  vykar -R REPO key export | lp
  vykar -R REPO key import key.txt";

pub const CHANGE_PASSPHRASE: &str = "\
Copies of keys/repokey from before still open with the old passphrase: in copies of the repository, and in exports.

Examples:
  vykar -R REPO key change-passphrase
  vykar -R REPO key change-passphrase --new-passphrase-file /root/new
  vykar -R REPO --passcommand 'pass old' key change-passphrase --new-passcommand 'pass new'";

pub const EXPORT: &str = "\
Examples:
  vykar -R REPO key export | lp                   print it
  vykar -R REPO key export --output /media/stick/vykar-key.txt";

pub const IMPORT: &str = "\
Examples:
  vykar -R REPO key import /media/stick/vykar-key.txt
  vykar -R REPO key import typed.txt --replace";

pub const MOUNT: &str = "\
Examples:
  vykar -R REPO mount /mnt
  vykar -R REPO mount /mnt --background --label photos --since 1y
  vykar -R REPO mount /mnt --snapshot latest:home/ada --owner-root
  vykar umount /mnt";

pub const CONFIG: &str = "\
Examples:
  vykar config > vykar.yaml
  vykar config check";

pub const CONFIG_CHECK: &str = "\
Examples:
  vykar config check
  vykar --config /etc/vykar/config.yaml config check --json";

pub const DAEMON: &str = "\
Examples:
  vykar daemon
  vykar --config /etc/vykar/config.yaml daemon";

pub const COMPLETIONS: &str = "\
Examples:
  vykar completions bash > ~/.local/share/bash-completion/completions/vykar
  vykar completions zsh > ~/.zfunc/_vykar
  vykar completions fish > ~/.config/fish/completions/vykar.fish";

pub const MAN: &str = "\
Examples:
  vykar man /usr/local/share/man/man1";

pub const UMOUNT: &str = "\
Examples:
  vykar umount /mnt
  vykar umount --lazy /mnt";

pub const LIST: &str = "\
Examples:
  vykar -R REPO list --label photos --last 5
  vykar -R REPO list --host nas --since 2w
  vykar -R REPO list --since '2026-11-01 12:00' --json";

pub const SNAPSHOT_LIST: &str = "\
Examples:
  vykar -R REPO snapshot list latest --long
  vykar -R REPO snapshot list latest --long --sort size | head
  vykar -R REPO snapshot list 8c2f --path photos/2019 --json";

pub const SNAPSHOT_FIND: &str = "\
A path that fits in one snapshot is followed through all of them, among those of the same host, label and paths.

Examples:
  vykar -R REPO snapshot find '*.odt'                      names, in any folder
  vykar -R REPO snapshot find etc/fstab                    a path
  vykar -R REPO snapshot find photos --iname '*.jpg'       names below a path
  vykar -R REPO snapshot find 'home/*/mail' --since 7d     below paths that fit, and modified since
  vykar -R REPO snapshot find --type f --larger 1G --label nas --last 10 --json";

pub const SNAPSHOT_DIFF: &str = "\
Examples:
  vykar -R REPO snapshot diff 8c2f latest
  vykar -R REPO snapshot diff 8c2f latest photos/2019
  vykar -R REPO snapshot diff 8c2f latest --json";

pub const CAT: &str = "\
The names in an archive are those in the snapshot. GNU tar restores all attributes with --acls and
--xattrs-include='*' only.
A file that is damaged is left out of an archive, unless it is large: then the archive ends there.

Examples:
  vykar -R REPO cat latest:etc/fstab
  vykar -R REPO cat 8c2f:mail/inbox | grep -a Subject:
  vykar -R REPO cat latest:photos --tar > photos.tar
  vykar -R REPO cat latest:home/ada --tar | tar -xp --acls --xattrs --xattrs-include='*' -C /mnt
  vykar -R REPO cat latest --tar | ssh nas 'cat > backup.tar'";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::args::Args;

    /// All commands by their names, with what stands at the end of their help.
    fn walk(command: &clap::Command, above: &str, found: &mut Vec<(String, String)>) {
        let name = format!("{above}{}", command.get_name());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for below in command.get_subcommands() {
            walk(below, &format!("{name} "), found);
        }
        found.push((name, help));
    }

    /// The words of vykar's part of a line, as a shell makes them; what is behind three spaces explains it.
    fn words(line: &str) -> Option<Vec<String>> {
        let line = line.trim().split("   ").next()?;
        let mut words = vec![String::new()];
        let mut quote = None;
        for c in line.chars() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, ' ') => words.push(String::new()),
                (_, c) => words.last_mut()?.push(c),
            }
        }
        assert!(quote.is_none(), "{line}");
        let parts = words.split(|word| ["|", ">", "<", "&&", ";"].contains(&word.as_str()));
        parts.map(<[String]>::to_vec).find(|part| part.first().is_some_and(|word| word == "vykar"))
    }

    #[test]
    fn every_command_has_examples_and_every_example_parses() {
        let mut commands = Vec::new();
        walk(&Args::command(), "", &mut commands);
        assert!(commands.len() > 25, "{commands:?}");
        for (name, help) in commands {
            let (_, examples) =
                help.split_once("Examples:\n").unwrap_or_else(|| panic!("{name}: no examples"));
            let mut of_it = 0;
            for line in examples.lines() {
                assert!(line.starts_with("  ") && line.len() <= 120, "{name}: {line}");
                let words = words(line).unwrap_or_else(|| panic!("{name}: {line}: where is vykar?"));
                let parsed = Args::try_parse_from(&words);
                assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.unwrap_err());
                // Options may stand between.
                let mut rest = words.iter();
                of_it += usize::from(name.split(' ').all(|part| rest.any(|word| word == part)));
            }
            assert!(of_it > 0, "{name}: no example is of it");
        }
    }
}
