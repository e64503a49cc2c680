//! Points at which a test may crash, stop or delay the process. Without the feature `failpoints`
//! they are nothing.
//!
//! `FAILPOINTS='dispatch::claimed=1*return(abort)'` ends the process without any clean-up at the
//! first claim; `return(stop)` stops it as SIGSTOP does; `sleep(200)` delays.

/// A point that the fault tests can name.
#[inline]
pub fn point(name: &str) {
    #[cfg(feature = "failpoints")]
    armed::point(name);
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

#[cfg(feature = "failpoints")]
mod armed {
    #[expect(clippy::print_stderr, reason = "the last word before an abrupt end, for the test that asked for it")]
    pub(super) fn point(name: &str) {
        fail::fail_point!(name, |action| {
            eprintln!("failpoint {name}: {action:?}");
            match action.as_deref() {
                Some("abort") => std::process::abort(),
                Some("stop") => {
                    let _sent = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
                    // Another thread may be the one that takes the signal, a moment later; this
                    // one must not go on meanwhile.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
                _ => {}
            }
        });
    }
}
