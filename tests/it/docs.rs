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

/// Every text file below `folder`.
fn texts(folder: &Path, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(texts(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

#[test]
fn every_test_that_the_documentation_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = texts(&root.join("docs"), "md");
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        documents.push((name.to_owned(), std::fs::read_to_string(root.join(name)).unwrap()));
    }
    let sources: String =
        ["src", "tests"].iter().flat_map(|folder| texts(&root.join(folder), "rs")).map(|it| it.1).collect();
    // Tests are sentences: nothing else that stands between backquotes has so many words.
    let is_test = |name: &&str| {
        name.matches('_').count() >= 4
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let mut named = 0;
    for (file, text) in &documents {
        for name in text.split('`').skip(1).step_by(2).map(|name| name.rsplit("::").next().unwrap()).filter(is_test) {
            named += 1;
            assert!(sources.contains(name), "{file}: no test is called {name}");
        }
    }
    assert!(named > 20, "only {named} were found: their form has changed");
}
