//! What parsers say of a bad value, in words of people.
//!
//! The libraries name types of this program ("expected struct CreateProduct with 6 elements"). Their texts are the only
//! thing they give away, so these are matched; one that is not known is passed on as it is.

/// A complaint about a field, and which one if it is another than the one looked at.
pub(crate) struct Complaint {
    /// A field inside of what was looked at.
    pub field: Option<String>,
    /// What is wrong with it.
    pub problem: String,
}

impl Complaint {
    /// Reads what a parser said.
    pub(crate) fn of(said: &str) -> Self {
        let said = said.split(" at line ").next().unwrap_or_default();
        let said = said.split(" for key `").next().unwrap_or_default();
        for (beginning, problem) in [
            ("missing field ", "is missing"),
            ("missing configuration field ", "is missing"),
            ("duplicate field ", "is given more than once"),
            ("unknown field ", "is not known here"),
        ] {
            if let Some(rest) = said.strip_prefix(beginning) {
                let known = rest.split_once(", expected ").map(|(_, known)| one_of(known));
                let hint = known.filter(|known| !known.is_empty()).map(|known| format!("; known are {known}"));
                return Self { field: Some(quoted(rest)), problem: format!("{problem}{}", hint.unwrap_or_default()) };
            }
        }
        Self { field: None, problem: problem(said) }
    }
}

fn problem(said: &str) -> String {
    if said.contains("invalid digit found") || said.contains("cannot parse integer") {
        return "must be a whole number".to_owned();
    }
    if said.contains("number too large") || said.contains("number too small") || said.contains("number out of range") {
        return "is out of range".to_owned();
    }
    if said.contains("provided string was not `true` or `false`") {
        return "must be true or false".to_owned();
    }
    if let Some(rest) = said.strip_prefix("unknown variant ")
        && let Some((_, known)) = rest.split_once(", expected ")
    {
        return format!("must be {}, not `{}`", one_of(known), quoted(rest));
    }
    for beginning in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((found, expected)) = said.strip_prefix(beginning).and_then(|rest| rest.rsplit_once(", expected ")) {
            // One library says "integer", another one "unsigned integer 64 bit".
            let kind_found = found.split('`').next().unwrap_or_default();
            let is_whole = kind_found.contains("integer") && expected_integer(expected);
            return if is_whole { "is out of range".to_owned() } else { format!("must be {}", kind(expected)) };
        }
    }
    said.to_owned()
}

fn expected_integer(expected: &str) -> bool {
    matches!(expected, "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "usize" | "isize")
        || expected.contains("integer")
}

fn kind(expected: &str) -> &str {
    match expected {
        _ if expected_integer(expected) => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" | "bool" => "true or false",
        "a string" | "string" | "str" | "a borrowed string" | "a character" => "text",
        "a sequence" => "a list",
        _ if expected.starts_with("struct ") || expected.contains("map") => "an object",
        other => other,
    }
}

/// The first word between backquotes.
fn quoted(text: &str) -> String {
    text.split('`').nth(1).unwrap_or(text).to_owned()
}

/// "one of `a`, `b`" and "`a` or `b`" as "a, b"; nothing for "there are no fields".
fn one_of(known: &str) -> String {
    let words: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => String::new(),
    }
}

/// What is wrong with a text that should be JSON.
pub(crate) fn of_json(error: &serde_json::Error) -> Complaint {
    if error.is_eof() {
        return Complaint { field: None, problem: "is not complete JSON".to_owned() };
    }
    if error.is_syntax() {
        let place = format!("line {}, column {}", error.line(), error.column());
        return Complaint { field: None, problem: format!("is not JSON: {place}") };
    }
    Complaint::of(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsers_are_translated() {
        for (said, field, problem) in [
            ("missing field `username` at line 1 column 2", Some("username"), "is missing"),
            ("duplicate field `limit`", Some("limit"), "is given more than once"),
            (
                "unknown field `x`, expected `username` or `password` at line 1 column 40",
                Some("x"),
                "is not known here; known are username or password",
            ),
            ("unknown field `x`, there are no fields", Some("x"), "is not known here"),
            ("invalid type: string \"a\", expected i64 at line 1 column 3", None, "must be a whole number"),
            ("invalid type: floating point `1.5`, expected i64", None, "must be a whole number"),
            ("invalid value: integer `9223372036854775808`, expected i64", None, "is out of range"),
            (
                "invalid type: unsigned integer 64 bit `70000`, expected an unsigned 16 bit integer",
                None,
                "is out of range",
            ),
            ("invalid type: integer `5`, expected a string", None, "must be text"),
            ("invalid type: null, expected a string", None, "must be text"),
            ("invalid type: string \"yes\", expected a boolean", None, "must be true or false"),
            ("invalid type: sequence, expected struct CreateProduct with 6 elements", None, "must be an object"),
            ("invalid digit found in string", None, "must be a whole number"),
            ("cannot parse integer from empty string", None, "must be a whole number"),
            ("number too large to fit in target type", None, "is out of range"),
            (
                "unknown variant `sold`, expected one of `upcoming`, `live`, `ended`",
                None,
                "must be upcoming, live or ended, not `sold`",
            ),
            ("must be a positive integer", None, "must be a positive integer"),
        ] {
            let complaint = Complaint::of(said);
            assert_eq!((complaint.field.as_deref(), complaint.problem.as_str()), (field, problem), "{said}");
        }
    }
}
