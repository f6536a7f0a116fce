//! Where people read: colours and a pager, only on a terminal.

use std::io::{IsTerminal as _, Write};
use std::process::{Child, Command, Stdio};

/// How text is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    colours: bool,
}

impl Paint {
    /// Colours on a terminal, unless `NO_COLOR` (no-color.org) or a terminal without them says otherwise.
    pub fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { colours: std::io::stdout().is_terminal() && !refused && !dumb }
    }

    /// Always, or never.
    #[cfg(test)]
    pub fn with(colours: bool) -> Self {
        Self { colours }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    /// What is there for those who look for it.
    pub fn faint(self, text: &str) -> String {
        self.code("2", text)
    }

    /// What is gone.
    pub fn red(self, text: &str) -> String {
        self.code("31", text)
    }

    /// What has come.
    pub fn green(self, text: &str) -> String {
        self.code("32", text)
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Text of others without what a terminal would take for orders.
pub fn harmless(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// Where text goes: through `$PAGER` on a terminal, else straight out.
pub struct Pages {
    pager: Option<Child>,
}

impl Pages {
    /// Starts the pager, where there is a terminal. `PAGER` may have arguments; empty, or `cat`, it is none.
    pub fn open() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self { pager: None };
        }
        let wanted = std::env::var("PAGER").unwrap_or_else(|_| "less 2>/dev/null || cat".to_owned());
        if wanted.is_empty() || wanted == "cat" {
            return Self { pager: None };
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(wanted).stdin(Stdio::piped());
        if std::env::var_os("LESS").is_none() {
            // Ends where all fits on the screen, shows colours, leaves the text there.
            command.env("LESS", "FRX");
        }
        // Without a shell there is no pager, and the text is there all the same.
        Self { pager: command.spawn().ok() }
    }

    /// Writes; false once nobody reads any more.
    pub fn write(&mut self, text: &str) -> bool {
        match self.pager.as_mut().and_then(|pager| pager.stdin.as_mut()) {
            Some(pipe) => pipe.write_all(text.as_bytes()).is_ok(),
            None => std::io::stdout().write_all(text.as_bytes()).is_ok(),
        }
    }

    /// Waits until whoever reads has seen enough.
    pub fn finish(mut self) {
        if let Some(mut pager) = self.pager.take() {
            drop(pager.stdin.take());
            // How it ended is its own affair.
            let _ = pager.wait();
        }
    }
}
