//! Texts that people read: a name, a description, a reason.

use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// Says of a text what [`is_plain`] checks, as far as a schema can.
pub fn plain_text_schema(min_chars: usize, max_chars: usize) -> Object {
    let visible = format!("[^{NOT_PLAIN}]*[^{NOT_PLAIN}{NOT_VISIBLE}][^{NOT_PLAIN}]*");
    let pattern = if min_chars == 0 { format!("^({visible})?$") } else { format!("^{visible}$") };
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(min_chars))
        .max_length(Some(max_chars))
        .pattern(Some(pattern))
        .build()
}

/// Of `is_plain`, for a class of characters.
const NOT_PLAIN: &str = r"\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069";

/// Of `is_visible`, as far as a class can say it that every language reads: without what is beyond U+FFFF.
const NOT_VISIBLE: &str = r" \u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb";

/// Checks that a text shows what it holds: no control characters, nothing that turns the direction of what follows.
pub fn is_plain(text: &str) -> Result<(), &'static str> {
    if text.chars().any(|character| character.is_control() || is_line_separator(character)) {
        return Err("must not hold control characters");
    }
    if text.chars().any(turns_direction) {
        return Err("must not hold characters that turn the direction of writing");
    }
    Ok(())
}

/// Whether there is anything to see.
pub fn is_visible(text: &str) -> bool {
    text.chars().any(|character| !character.is_whitespace() && !is_blank(character))
}

fn is_line_separator(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}')
}

/// Embeddings, overrides and isolates (Unicode's `Bidi_Control` without the marks, which turn nothing).
fn turns_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters that show nothing (Unicode's `Default_Ignorable_Code_Point`, blanks of Braille and of Hangul, and the
/// interlinear marks).
fn is_blank(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_show_what_they_hold() {
        for plain in ["Sneaker", "Größe 42 · 日本語", "قميص", "👟 limited\u{fe0f}", "a\u{200d}b", "נעל\u{200f}"]
        {
            assert_eq!(is_plain(plain), Ok(()), "{plain:?}");
            assert!(is_visible(plain), "{plain:?}");
        }
        for hidden in ["a\0b", "a\nb", "a\u{7f}", "a\u{9b}b", "a\u{2028}b", "\u{202e}abc", "a\u{2066}b\u{2069}"] {
            assert!(is_plain(hidden).is_err(), "{hidden:?}");
        }
        for nothing in
            ["", "  ", "\u{a0}", "\u{200b}\u{200d}", "\u{feff}", "\u{3164}", "\u{2800}", "\u{ad}", "\u{e0020}"]
        {
            assert!(!is_visible(nothing), "{nothing:?}");
        }
    }
}
