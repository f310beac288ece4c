//! docs/troubleshooting.md explains each line of the log at WARN and ERROR, and each word of `/readyz`. Its text is held
//! against the program's.

use std::fs;
use std::path::Path;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md")).unwrap()
}

/// The text of each source file, without that of the load generator, which is no server.
fn sources() -> Vec<String> {
    fn visit(folder: &Path, texts: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "bench") {
                visit(&path, texts);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut texts = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    texts
}

/// The first literal behind each `call` that is a sentence.
fn sentences(source: &str, call: &str) -> Vec<String> {
    let behind = source.split(call).skip(1);
    behind
        .filter_map(|text| {
            let end = text.find(");").unwrap_or(text.len());
            let literal = text[..end].split('"').skip(1).step_by(2).find(|literal| literal.contains(' '))?;
            Some(literal.split_whitespace().filter(|word| *word != "\\").collect::<Vec<_>>().join(" "))
        })
        .collect()
}

/// Its first clause, or as much of it as has no name or number in it.
fn fixed_part(sentence: &str) -> &str {
    sentence.split(['{', '?', '`', ':', ';', '(']).next().unwrap_or_default().trim()
}

#[test]
fn each_warning_and_error_of_the_log_is_explained() {
    let (page, mut compared) = (page(), 0);
    for source in sources() {
        let calls = ["tracing::warn!(", "tracing::error!(", "Outage::new(", "Outage::after("];
        for sentence in calls.iter().flat_map(|call| sentences(&source, call)) {
            let fixed = fixed_part(&sentence);
            assert!(page.contains(fixed), "docs/troubleshooting.md does not explain `{fixed}`, of `{sentence}`");
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} lines were found in the sources");
}

/// The first literal of each line between two marks.
fn words(source: &str, from: &str, to: &str) -> Vec<String> {
    let (_, rest) = source.split_once(from).unwrap_or_else(|| panic!("there is no `{from}`"));
    let (part, _) = rest.split_once(to).unwrap();
    part.lines().filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

#[test]
fn each_word_of_readyz_and_each_class_of_an_error_is_explained() {
    let page = page();
    let source = |mark: &str| sources().into_iter().find(|text| text.contains(mark)).expect(mark);
    let meanings = source("const MEANINGS");
    let mut known = words(&meanings, "const MEANINGS", "];");
    known.retain(|word| word.chars().all(|letter| letter.is_ascii_uppercase()));
    known.extend(words(&source("enum Trouble {"), "fn as_str(self)", "\n    }"));
    known.extend(words(&source("pub enum ErrorClass"), "fn as_str(self)", "\n    }"));
    known.extend(words(&source("pub fn trouble(&self) -> &str"), "pub fn trouble(&self) -> &str", "\n    }"));
    known.extend(
        ["disk", "stopped", "full", "stopping", "database", "gate", "queue", "tasks", "deployment"].map(str::to_owned),
    );
    assert!(known.len() > 40, "{known:?}");
    for word in known {
        assert!(
            page.contains(&format!("`{word}`"))
                || page.contains(&format!("\"{word}\""))
                || page.contains(&format!(" {word}`")),
            "docs/troubleshooting.md does not explain `{word}`"
        );
    }
}
