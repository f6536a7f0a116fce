//! Whether recovery finds the whole archived write-ahead log. PostgreSQL takes the first file that is not there for the end of the log, so a
//! hole must be looked for before it is started.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use crate::backup::kept::{Backups, Record, is_segment, segment_number};
use crate::backup::well;

/// The first file that recovery from this backup to the end of the archive would not find, although the log goes on after it.
///
/// # Errors
/// If the archive, or the history of its timelines, cannot be read, or the newest timeline does not come from the backup's.
pub async fn hole(backups: &Backups, record: &Record, identity: &Path) -> anyhow::Result<Option<String>> {
    let archived = backups.archived()?;
    let names: BTreeSet<&str> = archived.iter().map(|(name, _)| name.as_str()).collect();
    let backed_up = timeline_of(&record.first_wal).context("a backup of no timeline")?;
    let newest = match newest(&names, backed_up) {
        Ok(newest) => newest,
        Err(missing) => return Ok(Some(missing)),
    };
    let mut timelines = vec![Timeline { number: backed_up, first: 0 }];
    if newest > backed_up {
        let (name, path) = archived
            .iter()
            .find(|(name, _)| *name == history_name(newest))
            .context("the history of the newest timeline is gone")?;
        let history = read(path, identity).await.with_context(|| format!("{name} cannot be read"))?;
        let segment_bytes = (1 << 32) / u64::from(record.files_per_log);
        timelines = parse(&history, newest, segment_bytes).with_context(|| format!("{name} is no history"))?;
    }
    ensure!(
        timelines.iter().any(|timeline| timeline.number == backed_up),
        "timeline {newest} does not come from the backup's, {backed_up}: two primaries have archived into {}",
        backups.wal().display()
    );
    first_hole(&names, &timelines, &record.first_wal, record.files_per_log)
}

/// A timeline, and the number of the file in which it began.
struct Timeline {
    number: u32,
    first: u64,
}

/// The timeline that a segment or a history is of.
fn timeline_of(name: &str) -> Option<u32> {
    let is_one = is_segment(name) || (name.len() == 16 && name.ends_with(".history"));
    let digits = name.get(..8).filter(|digits| is_one && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// The newest timeline, which recovery finds by counting up through the histories; where one of them is missing, its name.
fn newest(names: &BTreeSet<&str>, backed_up: u32) -> Result<u32, String> {
    let mut newest = backed_up;
    while names.contains(history_name(newest + 1).as_str()) {
        newest += 1;
    }
    let later = names.iter().filter_map(|name| timeline_of(name)).any(|timeline| timeline > newest);
    if later { Err(history_name(newest + 1)) } else { Ok(newest) }
}

/// The timelines of a history, the oldest first: each line says where one has ended.
fn parse(history: &str, newest: u32, segment_bytes: u64) -> Option<Vec<Timeline>> {
    let (mut timelines, mut first) = (Vec::new(), 0);
    for line in history.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let (high, low) = words.next()?.split_once('/')?;
        let (high, low) = (u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?);
        timelines.push(Timeline { number, first });
        first = ((high << 32) | low) / segment_bytes;
    }
    timelines.push(Timeline { number: newest, first });
    Some(timelines)
}

/// The first file that is missing along the timelines.
fn first_hole(
    names: &BTreeSet<&str>,
    timelines: &[Timeline],
    first_wal: &str,
    files_per_log: u32,
) -> anyhow::Result<Option<String>> {
    let per_log = u64::from(files_per_log);
    let name = |timeline: u32, number: u64| format!("{timeline:08X}{:08X}{:08X}", number / per_log, number % per_log);
    // Where a timeline began inside a file, both have one of that number, and recovery reads the newer.
    let owner = |number: u64| {
        timelines.iter().rev().find(|timeline| timeline.first <= number).map_or(0, |timeline| timeline.number)
    };
    let wanted = |number: u64| name(owner(number), number);
    let first = segment_number(first_wal, files_per_log)?;
    let mut end = None;
    for segment in names.iter().filter(|name| is_segment(name)) {
        let number = segment_number(segment, files_per_log)?;
        if number >= first && *segment == wanted(number) {
            end = end.max(Some(number));
        }
    }
    let Some(end) = end else { return Ok(Some(wanted(first))) };
    if let Some(missing) = (first..=end).map(wanted).find(|name| !names.contains(name.as_str())) {
        return Ok(Some(missing));
    }
    // Without a newer timeline's file recovery would go on in the older one's, into what the promotion has given up.
    let goes_astray = timelines
        .iter()
        .filter(|timeline| timeline.number >= owner(end) && timeline.number != owner(end + 1))
        .any(|timeline| timeline.first <= end + 1 && names.contains(name(timeline.number, end + 1).as_str()));
    Ok(goes_astray.then(|| wanted(end + 1)))
}

/// A file of the archive, decrypted.
async fn read(path: &Path, identity: &Path) -> anyhow::Result<String> {
    let mut age = Command::new("age");
    age.arg("-d").arg("-i").arg(identity).arg(path);
    age.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut age = age.spawn().context("age cannot be run: `make setup`, or `apt-get install age`")?;
    let stream: Stdio = age.stdout.take().context("age has no output")?.try_into()?;
    let mut gzip = Command::new("gzip");
    gzip.arg("-d").stdin(stream).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let gzip = gzip.spawn().context("gzip cannot be run")?;
    let (decrypted, unpacked) = tokio::try_join!(age.wait_with_output(), gzip.wait_with_output())?;
    well("age", &decrypted).context("it cannot be decrypted; is this its identity?")?;
    well("gzip", &unpacked)?;
    Ok(String::from_utf8(unpacked.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Timeline 2 began in the middle of file 5, timeline 3 in the middle of file 7.
    const HISTORY: &str = "1\t0/5800000\tno recovery target specified\n\n2\t0/7000028\tno recovery target specified\n";

    fn hole_in(names: &[&str]) -> Option<String> {
        let names: BTreeSet<&str> = names.iter().copied().collect();
        let newest = match newest(&names, 1) {
            Ok(newest) => newest,
            Err(missing) => return Some(missing),
        };
        let mut timelines = parse(HISTORY, 3, 1 << 24).unwrap();
        timelines.truncate(usize::try_from(newest).unwrap());
        first_hole(&names, &timelines, "000000010000000000000003", 256).unwrap()
    }

    #[test]
    fn the_first_missing_file_is_named_and_an_end_is_no_hole() {
        let (three, four, five) = ("000000010000000000000003", "000000010000000000000004", "000000010000000000000005");
        let (two, two_five, two_six) = ("00000002.history", "000000020000000000000005", "000000020000000000000006");
        let (third, third_seven) = ("00000003.history", "000000030000000000000007");
        assert_eq!(hole_in(&[three, four, five]), None);
        assert_eq!(hole_in(&[]).as_deref(), Some(three));
        assert_eq!(hole_in(&[three, five]).as_deref(), Some(four));
        assert_eq!(hole_in(&[three, four, two, two_five, two_six, third, third_seven]), None);
        // What the promoted server has not archived yet is an end too, and the old one's last file is of no use.
        assert_eq!(hole_in(&[three, four, two]), None);
        assert_eq!(hole_in(&[three, four, five, two, two_five, two_six]), None);
        // A hole right where the timeline changes, which the old one's file hides or does not.
        assert_eq!(hole_in(&[three, four, two, two_six]).as_deref(), Some(two_five));
        assert_eq!(hole_in(&[three, four, five, two]).as_deref(), Some(two_five));
        assert_eq!(hole_in(&[three, four, two, two_five, third, third_seven]).as_deref(), Some(two_six));
        // Without a history the newer timelines are not found at all.
        assert_eq!(hole_in(&[three, four, two_five]).as_deref(), Some(two));
        assert_eq!(hole_in(&[three, four, two, two_five, two_six, "00000004.history"]).as_deref(), Some(third));
    }
}
