//! The unprivileged user that PostgreSQL and NATS run as where the stack is started by root, which PostgreSQL refuses.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use tokio::process::Command;

use crate::error::StackError;

/// A user of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// `postgres` where it exists, else `nobody`; none where the stack does not run as root and children stay who we are.
    ///
    /// # Errors
    /// If this is root and there is neither of the two.
    pub fn unprivileged() -> Result<Option<Self>, StackError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").map_err(StackError::io("/etc/passwd"))?;
        match find(&users, "postgres").or_else(|| find(&users, "nobody")) {
            Some(account) => Ok(Some(account)),
            None => Err(StackError::Missing {
                program: "a user that PostgreSQL can run as".to_owned(),
                remedy: "it refuses to run as root; make a user `postgres`, or run the stack as another user"
                    .to_owned(),
            }),
        }
    }

    /// Lets the command run as this user, without any other group.
    pub fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives the file or directory to this user.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn own(self, path: &Path) -> Result<(), StackError> {
        chown(path, Some(self.uid), Some(self.gid))
            .map_err(StackError::io(format!("giving {} to an unprivileged user", path.display())))
    }

    /// Whether this user can enter the directory, asked of the system itself: parents and access lists count.
    pub async fn reaches(self, directory: &Path) -> bool {
        let mut command = Command::new("test");
        command.arg("-x").arg(directory).current_dir("/");
        self.run(&mut command);
        command.status().await.is_ok_and(|status| status.success())
    }
}

fn find(users: &str, name: &str) -> Option<Account> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2);
    let uid = numbers.next()?.parse().ok()?;
    let gid = numbers.next()?.parse().ok()?;
    Some(Account { uid, gid })
}
