//! Tables in the documentation that are held against the program.

use std::path::Path;

/// Fails unless the block between `<!-- NAME -->` and `<!-- /NAME -->` is `expected`. With
/// `RECHARGED_BLESS=1` it is written instead.
pub(crate) fn holds(file: &str, name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (open, close) = (format!("<!-- {name} -->\n"), format!("\n<!-- /{name} -->"));
    let (before, rest) = text.split_once(&open).unwrap_or_else(|| panic!("{file} has no {}", open.trim()));
    let (found, after) = rest.split_once(&close).unwrap_or_else(|| panic!("{file} has no {}", close.trim()));
    if std::env::var_os("RECHARGED_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{open}{expected}{close}{after}")).unwrap();
        return;
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (found, expected) = (lines(found), lines(expected));
    let missing: Vec<&String> = expected.iter().filter(|line| !found.contains(line)).collect();
    let stale: Vec<&String> = found.iter().filter(|line| !expected.contains(line)).collect();
    assert!(
        found == expected,
        "{file} is not what the program says; run the test with RECHARGED_BLESS=1.\nmissing: {missing:#?}\nstale: {stale:#?}"
    );
}
