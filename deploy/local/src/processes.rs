//! Which processes a server has, asked of the system: what a supervisor remembers is not enough for a fence.

use std::path::Path;
use std::{fs, io};

use rustix::process::Pid;

/// The processes of this server that work in a directory: every process of a server does, also one that its postmaster has left behind, and
/// what it runs for the archive. Whoever else is there, such as a shell, is left alone.
///
/// # Errors
/// If the system does not say: then nobody knows that there is none.
pub(crate) fn processes_in(directory: &Path, postgres: &Path) -> io::Result<Vec<Pid>> {
    let postgres = fs::canonicalize(postgres)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process that has ended meanwhile has no link.
        if fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd == directory)
            && (runs(id, &postgres) || parent(id).is_some_and(|parent| runs(parent, &postgres)))
        {
            found.extend(Pid::from_raw(id));
        }
    }
    Ok(found)
}

fn runs(process: i32, program: &Path) -> bool {
    // The file of a server that runs may have been replaced by an upgrade.
    let replaced = format!("{} (deleted)", program.display());
    fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|exe| exe == program || exe == Path::new(&replaced))
}

fn parent(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The program's name before the last bracket may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
