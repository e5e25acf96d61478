use std::path::Path;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vykar_mount::view::subtree_root::SetupError;
use vykar_mount::{Freed, Mount, MountError, MountOptions};

use super::print;
use crate::args::{MountArgs, ResolvedOptions};
use crate::background::{self, Ready, Side};
use crate::exit::{CliError, CliResult, Exit};
use crate::watchdog::Watchdog;
use crate::{context, platform, render, say};

impl From<MountError> for CliError {
    fn from(e: MountError) -> Self {
        match e {
            MountError::Setup(SetupError::Repository(e)) => e.into(),
            e @ (MountError::Mountpoint { .. } | MountError::NotADirectory { .. }) => {
                CliError::new(Exit::Failure, e.to_string())
                    .hint("give an empty folder that exists (mkdir makes one)")
            }
            MountError::Busy { ref path, .. } => {
                let path = render::path(path);
                CliError::new(Exit::Failure, e.to_string())
                    .hint(format!("end what uses it, or detach it at once: vykar umount --lazy {path}"))
            }
            other => CliError::new(Exit::Failure, other.to_string()),
        }
    }
}

pub fn run(global: &ResolvedOptions, args: &MountArgs) -> CliResult {
    let Some(mountpoint) = &args.mountpoint else {
        return Err(CliError::new(Exit::Usage, "no folder to mount on")
            .hint("give an empty folder, or configure `mount: {mountpoint: ...}`"));
    };
    if !args.background {
        return serve(global, args, mountpoint, None);
    }
    let log = context::open_options(global).cache_dir.map(|dir| dir.join("mount.log"));
    match background::split(log)? {
        Side::Caller(exit) => Ok(exit),
        Side::Child(ready) => serve(global, args, mountpoint, Some(ready)),
    }
}

fn serve(global: &ResolvedOptions, args: &MountArgs, mountpoint: &Path, ready: Option<Ready>) -> CliResult {
    platform::return_freed_memory();
    // Before the mount, so that no moment of it is without, and by the process's first thread.
    let watchdog = Watchdog::start();
    let repository = Arc::new(context::open(global)?);
    let mut options = MountOptions::new(mountpoint);
    options.repository_path = Some(global.repo.clone());
    options.cache_size = args.cache_size;
    options.read_ahead_kib = args.readahead;
    options.shown = args.view.shown(&repository)?;
    options.threads = global.threads;
    options.allow_other = args.allow_other;
    options.no_exec = args.noexec;
    options.export = args.export;
    options.keep_awake = args.keep_awake;
    options.zone = jiff::tz::TimeZone::system();
    options.freed = Some(Freed(Arc::new(platform::trim_memory)));
    options.announce = watchdog.as_ref().ok().map(Watchdog::announce);
    let log: vykar_mount::Log = Arc::new(|line| say!("{line}"));
    // Before the mount's threads are made, so that signals reach only this handler.
    let ends = [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .filter(|signal| *signal != SIGHUP || !platform::is_ignored(SIGHUP));
    let mut signals = Signals::new(ends)
        .map_err(|e| CliError::new(Exit::Failure, format!("cannot handle signals: {e}")))?;
    let mount = Mount::new(repository, &options, log).inspect_err(|_| {
        let _ = watchdog.as_ref().map(Watchdog::dismiss);
    })?;
    let failure = match &watchdog {
        Ok(watchdog) => watchdog.failure().map(|e| e.to_string()),
        Err(e) => Some(e.to_string()),
    };
    if let Some(e) = failure {
        say!("nothing will unmount this if the process is killed: {e}");
    }
    let place = render::path(mountpoint);
    match ready {
        Some(ready) => {
            if !global.quiet {
                print(&format!("Mounted on {place}; unmount with: vykar umount {place}\n"));
            }
            ready.detach()?;
        }
        None if !global.quiet => {
            print(&format!("Mounted on {place}; Ctrl-C unmounts\n"));
        }
        None => {}
    }
    let unmounter = mount.unmounter();
    let handle = signals.handle();
    let thread = std::thread::spawn(move || {
        for _ in &mut signals {
            match unmounter.unmount() {
                Ok(()) => {}
                Err(e @ MountError::Busy { .. }) => {
                    say!("{e}");
                    say::hint("end what uses it; a second Ctrl-C or SIGTERM detaches it at once");
                }
                Err(e) => say!("{e}"),
            }
        }
    });
    let ended = mount.wait();
    handle.close();
    let _ = thread.join();
    // An end that is no unmount leaves a dead mount for the watchdog.
    if let (Ok(()), Ok(watchdog)) = (&ended, watchdog) {
        watchdog.dismiss();
    }
    ended.map_err(|e| CliError::new(Exit::Failure, format!("the mount on {place} ended: {e}")))?;
    Ok(Exit::Success)
}

pub fn unmount(mountpoint: &Path, lazy: bool) -> CliResult {
    vykar_mount::unmount(mountpoint, lazy)?;
    Ok(Exit::Success)
}
