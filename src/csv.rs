//! A record of CSV (RFC 4180): fields in quotes may hold the delimiter, quotes twice, and line breaks.

/// What a text is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Whole(Vec<String>),
    /// A field in quotes has not ended.
    GoesOn,
    Broken(&'static str),
}

/// What stands between the fields: whatever the header has most of.
pub(crate) fn delimiter_of(header: &str) -> char {
    let count = |delimiter: char| header.matches(delimiter).count();
    // The last of equals wins: a comma.
    ['\t', ';', ','].into_iter().max_by_key(|delimiter| count(*delimiter)).unwrap_or(',')
}

/// Reads a record; `text` is without its line break.
pub(crate) fn record(text: &str, delimiter: char) -> Record {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            match in_quotes(quoted) {
                Some(found) => found,
                None => return Record::GoesOn,
            }
        } else {
            let end = rest.find(delimiter).unwrap_or(rest.len());
            let (field, after) = rest.split_at(end);
            if field.contains('"') {
                return Record::Broken(
                    "a quote stands in the middle of a field: put the field in quotes, and its quotes twice",
                );
            }
            (field.to_owned(), after)
        };
        fields.push(field);
        if after.is_empty() {
            return Record::Whole(fields);
        }
        let Some(next) = after.strip_prefix(delimiter) else {
            return Record::Broken("something follows a field in quotes: a quote inside it must stand twice");
        };
        rest = next;
    }
}

/// A field up to its closing quote, and what follows that.
fn in_quotes(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        let Some(next) = after.strip_prefix('"') else { return Some((field, after)) };
        field.push('"');
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(fields: &[&str]) -> Record {
        Record::Whole(fields.iter().map(|field| (*field).to_owned()).collect())
    }

    #[test]
    fn fields_are_read_with_and_without_quotes() {
        assert_eq!(record("a,,\"b,\"\"c\"\"\",d", ','), whole(&["a", "", "b,\"c\"", "d"]));
        assert_eq!(record("a;\"x\ny\";", ';'), whole(&["a", "x\ny", ""]));
        assert_eq!(record("a,\"b", ','), Record::GoesOn);
        assert!(matches!(record("a,b\"c", ','), Record::Broken(_)));
        assert!(matches!(record("\"a\"b,c", ','), Record::Broken(_)));
    }

    #[test]
    fn the_delimiter_is_what_the_header_has() {
        for (header, delimiter) in [("a,b", ','), ("a;b,c;d", ';'), ("a\tb", '\t'), ("a", ',')] {
            assert_eq!(delimiter_of(header), delimiter, "{header}");
        }
    }
}
