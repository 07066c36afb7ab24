//! Owns a rough view of Rust source for the rules: code without comments and strings, product without tests.
//! Must never try to be a parser: what it cannot tell apart it leaves in, so that a rule errs towards saying something.

/// The text with comments and the contents of literals blanked; lines stay where they are.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => end_of_line(&chars, i),
            ('/', '*') => end_of_block(&chars, i),
            ('r', '"' | '#') if !is_word(at(i.wrapping_sub(1))) => end_of_raw(&chars, i),
            ('"', _) => end_of_string(&chars, i),
            ('\'', '\\') => end_of_char(&chars, i + 3),
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            _ => i,
        };
        if end == i {
            out.push(at(i));
            i += 1;
        } else {
            let blanked = chars.get(i..end.min(chars.len())).unwrap_or_default();
            out.extend(blanked.iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

fn find(chars: &[char], from: usize, stop: impl Fn(usize) -> bool) -> usize {
    (from..chars.len()).find(|&i| stop(i)).unwrap_or(chars.len())
}

fn end_of_line(chars: &[char], from: usize) -> usize {
    find(chars, from, |i| chars.get(i) == Some(&'\n'))
}

fn end_of_block(chars: &[char], from: usize) -> usize {
    find(chars, from + 2, |i| chars.get(i..i + 2) == Some(&['*', '/'])) + 2
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while let Some(c) = chars.get(i) {
        match c {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn end_of_char(chars: &[char], from: usize) -> usize {
    find(chars, from, |i| chars.get(i) == Some(&'\'')) + 1
}

/// `from` again when this is no raw string but, say, a raw identifier.
fn end_of_raw(chars: &[char], from: usize) -> usize {
    let hashes = chars.iter().skip(from + 1).take_while(|&&c| c == '#').count();
    let open = from + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return from;
    }
    let closes = |i: usize| chars.get(i) == Some(&'"') && (1..=hashes).all(|n| chars.get(i + n) == Some(&'#'));
    find(chars, open + 1, closes) + 1 + hashes
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands alone in `line`.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    word_at(line, word).is_some()
}

/// Where `word` stands alone in `line`: the rest after it.
pub(super) fn word_at<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.match_indices(word).find_map(|(start, _)| {
        let before = line.get(..start)?.chars().next_back();
        let rest = line.get(start + word.len()..)?;
        let alone = !before.is_some_and(is_word) && !rest.chars().next().is_some_and(is_word);
        alone.then_some(rest)
    })
}

/// The line where inline tests begin, counted from 0; the number of lines when there are none.
pub(super) fn product_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| match pair {
        [cfg, module] => cfg.starts_with("#[cfg(test)]") && module.starts_with("mod ") && module.ends_with('{'),
        _ => false,
    });
    tests.unwrap_or(lines.len())
}
