//! The store knows nothing of companies and prospects: they come in through `domain::Record`.

use std::path::Path;

#[test]
fn the_store_names_no_sort_of_record() {
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut looked = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            continue;
        }
        looked += 1;
        let text = std::fs::read_to_string(&path).expect("a source file");
        // Comments may name an example; code may not.
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            for name in ["Company", "Prospect", "company", "\"prospect\""] {
                assert!(!line.contains(name), "{}: {line}", path.display());
            }
        }
    }
    assert!(looked > 10, "{looked} files");
}
