//! What the documents name is there: files, tests, functions, settings, metrics. A rename that forgets them fails here.

use std::fs;
use std::path::{Path, PathBuf};

/// Files under `folder` whose names end in `ending`, each with its text.
fn texts(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every document that a reader gets.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = texts("docs", ".md");
    // The changelog names what was there at its time.
    for name in ["README.md", "README.zh-CN.md", "ARCHITECTURE.md", "tests/README.md"] {
        documents.push((root.join(name), read(name)));
    }
    documents
}

/// What stands between backticks, outside of blocks of code.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.lines()).flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Collects what is wrong, so that one run says all of it.
fn nothing_is_missing(missing: Vec<String>) {
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn files_that_documents_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = ["src/", "tests/", "docs/", "benches/", "scripts/", "deploy/", "migrations/"];
    let mut missing = Vec::new();
    for (document, text) in documents() {
        for name in quoted(&text).filter(|name| ours.iter().any(|folder| name.starts_with(folder))) {
            // A script may be named with what it is told.
            if !root.join(name.split(' ').next().unwrap_or(name)).exists() {
                missing.push(format!("{}: `{name}`", document.display()));
            }
        }
    }
    nothing_is_missing(missing);
}

/// ARCHITECTURE says of each room what it is for.
#[test]
fn every_room_is_in_the_map() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = read("ARCHITECTURE.md");
    let mut missing = Vec::new();
    for folder in ["src", "src/services"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let slash = if entry.path().is_dir() { "/" } else { "" };
            let room = format!("{folder}/{}{slash}", entry.file_name().to_string_lossy());
            if !room.ends_with("/mod.rs") && !quoted(&text).any(|name| name == room) {
                missing.push(room);
            }
        }
    }
    nothing_is_missing(missing);
}

/// As a page's viewer makes them of headings: words in small letters, joined by hyphens.
fn anchors(text: &str) -> Vec<String> {
    let headings = text
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let slug = |heading: &str| {
        let kept =
            heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
        kept.replace(' ', "-")
    };
    let ids = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned));
    headings.map(slug).chain(ids).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut missing = Vec::new();
    for (document, text) in documents() {
        let folder = document.parent().unwrap();
        // A link may be broken over two lines.
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let led = if file.is_empty() { document.clone() } else { folder.join(file) };
            let found = match fs::read_to_string(&led) {
                Ok(text) => anchor.is_empty() || anchors(&text).iter().any(|known| known == anchor),
                Err(_) => anchor.is_empty() && led.exists(),
            };
            if !found {
                missing.push(format!("{}: ({target})", document.display()));
            }
        }
    }
    nothing_is_missing(missing);
}

/// In tests/README.md a link names a file, and what follows it are tests in that file.
#[test]
fn tests_that_guard_promises_exist() {
    let text = read("tests/README.md");
    let mut missing = Vec::new();
    let mut found = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        for part in line.split("](").skip(1) {
            let (file, names) = part.split_once(')').unwrap();
            let source = read(&format!("tests/{file}"));
            for name in quoted(names).filter(|name| is_word(name)) {
                let is_there = source.lines().map(str::trim_start).any(|line| {
                    line.contains(&format!("fn {name}("))
                        || line.strip_prefix(name).is_some_and(|rest| rest.starts_with([',', ':']))
                });
                found += 1;
                if !is_there {
                    missing.push(format!("{file}: `{name}`"));
                }
            }
        }
    }
    assert!(found > 20, "{found}");
    nothing_is_missing(missing);
}

/// `Type::function`, and `SHOUTING` or `CamelCase` names.
#[test]
fn names_of_the_code_in_documents_are_those_of_the_code() {
    let code: String = texts("src", ".rs").into_iter().map(|(_, text)| text).collect();
    let mut missing = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let declares = |name: &str| {
        ["struct", "enum", "type", "trait"].iter().any(|kind| {
            code.split(&format!("{kind} {name}")).skip(1).any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        })
    };
    for document in ["ARCHITECTURE.md", "docs/protocol.md", "docs/operations.md"] {
        for name in quoted(&read(document)) {
            let is_there = match name.split_once("::") {
                Some((owner, member)) if is_word(member) => {
                    if owner.starts_with(|c: char| c.is_ascii_uppercase()) && !declares(owner) {
                        missing.push(format!("{document}: `{name}`"));
                    }
                    code.contains(&format!("fn {member}("))
                        || code.contains(&format!("fn {member}<"))
                        || code.contains(&format!("    {member},"))
                        || code.contains(&format!("    {member}("))
                }
                None if is_word(name)
                    && name.starts_with(|c: char| c.is_ascii_uppercase())
                    && name.contains(|c: char| c.is_ascii_lowercase()) =>
                {
                    declares(name) || root.join(name).exists()
                }
                None if is_word(name)
                    && name.contains('_')
                    && name.chars().all(|c| c.is_ascii_uppercase() || c == '_') =>
                {
                    code.contains(&format!("const {name}:"))
                }
                _ => true,
            };
            if !is_there {
                missing.push(format!("{document}: `{name}`"));
            }
        }
    }
    nothing_is_missing(missing);
}

#[test]
fn settings_and_metrics_in_documents_exist() {
    let config = read("config.yaml");
    let code: String = texts("src", ".rs").into_iter().map(|(_, text)| text).collect();
    let sections = [
        "server.",
        "embedded.",
        "mysql.",
        "redis.",
        "rabbitmq.",
        "auth.",
        "admin.",
        "limits.",
        "log.",
        "orders.",
        "payments.",
        "shop.",
        "traces.",
        "webhooks.",
    ];
    let mut missing = Vec::new();
    for (document, text) in documents() {
        for name in quoted(&text).map(|name| name.split(['{', ':']).next().unwrap_or(name)) {
            let is_setting = sections.iter().any(|section| name.starts_with(section)) && name.split('.').all(is_word);
            let is_metric = is_word(name) && name.starts_with("seckill_");
            let key = name.rsplit('.').next().unwrap_or(name);
            if (is_setting && !config.contains(&format!("  {key}:")))
                || (is_metric && !code.contains(&format!("\"{name}\"")))
            {
                missing.push(format!("{}: `{name}`", document.display()));
            }
        }
    }
    nothing_is_missing(missing);
}

/// Each line of docs/peers.md has a test that cites it.
#[test]
fn every_failure_of_others_has_a_test() {
    let tests: Vec<String> = texts("tests", ".rs").into_iter().map(|(_, text)| text).collect();
    let cited = |number: &str| {
        let mut places = tests.iter().flat_map(|text| text.split("(peers ").skip(1));
        places.any(|rest| rest.split(')').next().is_some_and(|list| list.split(", ").any(|one| one == number)))
    };
    let lines = anchors(&read("docs/peers.md"));
    let numbers = lines.iter().filter_map(|anchor| anchor.strip_prefix("peers-"));
    nothing_is_missing(numbers.filter(|number| !cited(number)).map(|number| format!("(peers {number})")).collect());
}

/// `(peers N)` is a line of docs/peers.md, and a rule of docs/protocol.md is cited by its anchor.
#[test]
fn citations_in_the_code_lead_somewhere() {
    let (peers, protocol) = (read("docs/peers.md"), anchors(&read("docs/protocol.md")));
    let mut missing = Vec::new();
    let sources = texts("src", ".rs").into_iter().chain(texts("tests", ".rs"));
    for (path, text) in sources.filter(|(path, _)| !path.ends_with(file!())) {
        for cited in text.split("(peers ").skip(1).filter_map(|rest| rest.split(')').next()) {
            let numbers = cited.split(", ").filter(|number| number.parse::<u32>().is_ok());
            missing.extend(
                numbers
                    .filter(|number| !peers.contains(&format!("<a id=\"peers-{number}\"></a>")))
                    .map(|number| format!("{}: (peers {number})", path.display())),
            );
        }
        for cited in text.split("docs/protocol.md (`#").skip(1).filter_map(|rest| rest.split('`').next()) {
            if !protocol.iter().any(|anchor| anchor == cited) {
                missing.push(format!("{}: docs/protocol.md#{cited}", path.display()));
            }
        }
    }
    nothing_is_missing(missing);
}

/// Whoever adds a dependency says why.
#[test]
fn every_direct_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let text = read("ARCHITECTURE.md");
    let table = text.split_once("## Dependencies").unwrap().1;
    let listed: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split([',', ' ', '(', ')']))
        .collect();
    let mut section = "";
    let mut missing = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies]")
            && let Some((name, _)) = line.split_once(" = ")
            && !listed.contains(&name.split('.').next().unwrap_or(name))
        {
            missing.push(name.to_owned());
        }
    }
    nothing_is_missing(missing);
}

/// The table of docs/api.md is for people; what it promises of refusals is in the document for programs, too.
#[test]
fn both_descriptions_of_the_api_name_the_same_paths_and_refusals() {
    let document: serde_json::Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    let (mut missing, mut told) = (Vec::new(), 0);
    let table = read("docs/api.md");
    for row in table.lines().filter(|line| line.starts_with("| `") && line.contains(" /")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let (asked, refusals) = (quoted(cells[0]).next().unwrap(), cells.last().unwrap());
        let (method, path) = asked.split_once(' ').unwrap();
        let path = path.split('?').next().unwrap();
        let operation = &document["paths"][path][method.to_lowercase()];
        let replies = operation["responses"].as_object().into_iter().flatten();
        let known: Vec<String> = replies
            .map(|(_, reply)| reply["$ref"].as_str().map_or(reply, |name| document.pointer(&name[1..]).unwrap()))
            .filter_map(|reply| reply["content"]["application/problem+json"]["examples"].as_object())
            .flat_map(|examples| examples.keys().cloned())
            .collect();
        if operation.is_null() {
            missing.push(format!("{asked} is not described"));
        }
        // `(with `remaining`)` names a field.
        let fields = &document["components"]["schemas"]["Problem"]["properties"];
        for code in quoted(refusals).filter(|word| is_word(word) && fields[word].is_null()) {
            told += 1;
            if !known.iter().any(|known| known == code) {
                missing.push(format!("{asked}: {code}"));
            }
        }
    }
    assert!(told > 50, "the table has been read");
    nothing_is_missing(missing);
}

/// Who reads `docs/openapi.json` reads what `/openapi.json` says.
#[test]
fn the_openapi_document_is_the_one_of_the_code() {
    let is_same = read("docs/openapi.json") == seckill::handlers::openapi();
    assert!(is_same, "docs/openapi.json is older than the code: cargo run -- openapi > docs/openapi.json");
}
