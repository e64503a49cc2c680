use std::io::BufReader;

use super::*;
use crate::config::Config;

const CONFIG: &str = "[providers.one]\nkind = \"simulator\"\nbase_url = \"http://h\"\nproducts = [{ country = \"CN\", carrier = \"*\", amount_minor = 5000, product = \"50\" }]\n";

fn now() -> Timestamp {
    Timestamp::from_timestamp(1_790_000_000, 0).unwrap()
}

fn terms() -> Terms {
    let config = Config::read(CONFIG, [], &[]).unwrap().config;
    Terms {
        phone_key: PhoneKey::new(b"a key for tests only").unwrap(),
        routes: config.route_table(),
        retention: config.retention.closed_orders.get(),
        sla: config.sla.deadline.get(),
        unpaid_timeout: config.sla.unpaid_timeout.get(),
        accept_refunds: false,
    }
}

fn ago(seconds: i64) -> String {
    (now() - chrono::Duration::seconds(seconds)).to_rfc3339()
}

/// A line of JSON; the last member wins, so that each can be changed.
fn order(id: &str, more: &str) -> String {
    let at = ago(10);
    format!(
        r#"{{"order_id":"{id}","phone":"+8613800000001","amount_minor":5000,"currency":"CNY","created_at":"{at}"{more}}}"#
    )
}

struct ReadBack {
    rows: Rows<BufReader<std::io::Cursor<Vec<u8>>>>,
    all: Vec<Result<Candidate, Problem>>,
}

fn read_with(terms: &Terms, format: Format, text: impl Into<Vec<u8>>) -> ReadBack {
    let mut rows = Rows::new(BufReader::with_capacity(16, std::io::Cursor::new(text.into())), format);
    let mut all = Vec::new();
    while let Some(row) = rows.next_row().unwrap() {
        all.push(terms.check(row, now()));
    }
    ReadBack { rows, all }
}

fn read(format: Format, text: impl Into<Vec<u8>>) -> ReadBack {
    read_with(&terms(), format, text)
}

/// What was said of each line that is wrong.
fn wrong(read: &ReadBack) -> Vec<String> {
    let said: Vec<String> = read.all.iter().filter_map(|row| Some(row.as_ref().err()?.to_string())).collect();
    assert!(!said.iter().any(|said| said.contains("1380000")), "{said:?}");
    said
}

#[test]
fn a_line_of_either_form_becomes_the_same_order() {
    let at = ago(10);
    let json = format!(
        "\u{feff}{}\r\n\n{}",
        order("a-1", r#","carrier":"x, y","payment_id":"p","notify":true,"metadata":{"n":12345678901234567890123}"#)
            .replace("\"created_at\"", &format!("\"paid_at\":\"{at}\",\"created_at\"")),
        order("a-2", "")
    );
    let csv = format!(
        "Order_ID;phone;amount_minor;currency;created_at;paid_at;carrier;payment_id;notify;metadata;remark\n\
         a-1;+8613800000001;5000;CNY;{at};{at};\"x, y\";p;true;\"{{\"\"n\"\":12345678901234567890123}}\";\"two\nlines\"\n\
         a-2;+8613800000001;5000;CNY;{at};;;;;;\n"
    );
    let (json, csv) = (read(Format::Jsonl, json), read(Format::Csv, csv));
    assert_eq!((wrong(&json), wrong(&csv)), (Vec::new(), Vec::new()));
    let orders = |read: &ReadBack| read.all.iter().map(|row| (*row.as_ref().unwrap().new).clone()).collect::<Vec<_>>();
    assert_eq!(orders(&json), orders(&csv));
    assert_eq!(orders(&csv)[0].metadata.as_deref(), Some(r#"{"n":12345678901234567890123}"#));
    let lines = |read: &ReadBack| read.all.iter().map(|row| row.as_ref().unwrap().line).collect::<Vec<_>>();
    assert_eq!((lines(&json), lines(&csv)), (vec![1, 3], vec![2, 4]));
    assert_eq!((json.rows.unread.names(), csv.rows.unread.names()), (Vec::<&str>::new(), vec!["remark"]));
}

#[test]
fn an_event_is_read_back_as_the_order_that_it_was_made_of() {
    let candidate = read(Format::Jsonl, order("a-1", r#","later":[1]"#)).all.remove(0).unwrap();
    let new = candidate.new.clone();
    let event = candidate.event(&Arc::from("recharge.orders"));
    assert_eq!(event.key.as_deref(), Some(b"a-1".as_slice()));
    let read = inbound::read(event.value.as_deref(), &event.headers, false, &terms().phone_key);
    assert_eq!(read, Ok(Inbound::Created(new)));
    assert!(event.headers.contains(&(Bytes::from_static(b"ce_id"), Some(Bytes::from_static(b"a-1:created")))));
}

#[test]
fn each_line_that_is_wrong_is_told_with_its_field_and_the_rule_and_the_others_are_read() {
    let long = format!("{{\"order_id\":\"{}\"}}", "x".repeat(70_000));
    let lines: Vec<(Vec<u8>, &str)> = vec![
        (order("ok-1", "").into(), ""),
        (order("a/b", "").into(), "line 2: order_id: "),
        (b"{\"order_id\":\"x\"".to_vec(), "line 3: not JSON, column 15"),
        (b"\xff\xfe".to_vec(), "line 4: not UTF-8"),
        (
            order("o", "").replace("5000", "\"13800000001\"").into(),
            "line 5: amount_minor: expected i64, found a text of 11 characters",
        ),
        (long.into(), "line 6: longer than 64 KiB"),
        (b"[1]".to_vec(), "line 7: a list where an object is expected"),
        (order("ok-2", "").into(), ""),
    ];
    let text: Vec<u8> = lines.iter().flat_map(|(text, _)| [text.as_slice(), b"\n"].concat()).collect();
    let read = read(Format::Jsonl, text);
    assert_eq!(read.all.len(), lines.len());
    for (row, (_, said)) in read.all.iter().zip(lines) {
        match row {
            Ok(_) => assert_eq!(said, ""),
            Err(problem) => assert!(!said.is_empty() && problem.to_string().starts_with(said), "{problem}, not {said}"),
        }
    }
    wrong(&read);
}

#[test]
fn a_csv_file_is_told_what_it_lacks_once_and_each_line_what_is_wrong_with_it() {
    let at = ago(10);
    let header = "order_id,phone,amount_minor,currency,created_at,notify,metadata";
    let told = |text: String| wrong(&read(Format::Csv, text));
    assert_eq!(told(String::new()), ["line 1: there is no line with the names of the fields"]);
    let lacks = told("order_id,phone,amount,currency,created_at\na,b,c,d,e\na,b,c,d,e\n".to_owned());
    assert_eq!(lacks.len(), 1);
    assert!(lacks[0].starts_with("line 1: amount_minor: the first line must name it"), "{lacks:?}");
    assert_eq!(told(format!("{header},phone\n")), ["line 1: phone: the first line names it twice"]);
    let lines = [
        ("a,13800000001,5000", "it has 3 fields, the first line 7"),
        ("a,+8613800000001,50.00,CNY,AT,,", "amount_minor: a whole number, in minor units"),
        ("a,+8613800000001,5000,CNY,AT,perhaps,", "notify: true or false"),
        ("a,+8613800000001,5000,CNY,AT,,{x}", "metadata: JSON"),
        (",+8613800000001,5000,CNY,AT,,", "order_id: is missing"),
        (
            "a,+8613800000001,5000,CNY,yesterday,,",
            "created_at: a value of another form than the schema asks, found a text of 9 characters",
        ),
        ("a,+8613800000001,5000,CN\"Y,AT,,", "a quote stands in the middle of a field"),
        ("a,\"+8613800000001,5000,CNY,AT,,", "a field in quotes has no end"),
    ];
    let text: Vec<String> = lines.iter().map(|(line, _)| line.replace("AT", &at)).collect();
    let told = told(format!("{header}\n{}\n", text.join("\n")));
    assert_eq!(told.len(), lines.len(), "{told:?}");
    for (nth, (told, (_, said))) in told.iter().zip(lines).enumerate() {
        assert!(told.starts_with(&format!("line {}: {said}", nth + 2)), "{told}, not {said}");
    }
}

#[test]
fn what_would_end_at_once_is_wrong_unless_it_is_wanted() {
    let paid = |seconds: i64, more: &str| order("a", &format!(r#","paid_at":"{}"{more}"#, ago(seconds)));
    let cases = [
        (paid(179, ""), None),
        (paid(180, ""), Some("paid_at: its deadline is over")),
        (order("a", "").replace(&ago(10), &ago(1_800)), Some("created_at: it was not paid in time")),
        (order("a", "").replace(&ago(10), &ago(1_799)), None),
        (paid(1, "").replace("+8613800000001", "n/a"), Some("phone: no phone network has issued such a number")),
        (paid(1, "").replace("5000", "5001"), Some("amount_minor: no lane serves it (amount_not_supported)")),
    ];
    for (line, said) in cases {
        let refused = read(Format::Jsonl, line.clone());
        let wanted = said.map(|said| format!("line 1: {said}"));
        let told = wrong(&refused);
        assert!(
            told.first().map_or(wanted.is_none(), |told| wanted.as_ref().is_some_and(|w| told.starts_with(w))),
            "{told:?} {said:?}"
        );
        let taken = read_with(&Terms { accept_refunds: true, ..terms() }, Format::Jsonl, line);
        assert_eq!(taken.all[0].as_ref().unwrap().ends_at_once, said.is_some());
    }
    // Not what was handled and forgotten: that would be a dead letter.
    let old = paid(91 * 86_400, "");
    let told = wrong(&read_with(&Terms { accept_refunds: true, ..terms() }, Format::Jsonl, old));
    assert!(told[0].starts_with("line 1: paid_at: older than closed orders are kept"), "{told:?}");
}

#[test]
fn an_order_that_stands_there_twice_counts_once_and_another_under_its_id_is_wrong() {
    let other = order("a", "").replace("5000", "4000");
    let read = read_with(
        &Terms { accept_refunds: true, ..terms() },
        Format::Jsonl,
        [order("a", ""), order("b", ""), order("a", r#","remark":1"#), other].join("\n"),
    );
    let mut twins = Twins::default();
    let met: Vec<Result<bool, String>> =
        read.all.iter().map(|row| twins.is_new(row.as_ref().unwrap()).map_err(|problem| problem.to_string())).collect();
    let said = "line 4: order_id: stands in line 1 already, with another phone, amount or payment";
    assert_eq!(met, [Ok(true), Ok(true), Ok(false), Err(said.to_owned())]);
}

#[test]
fn an_order_that_is_there_is_known_paid_or_another() {
    let paid = |more: &str| order("a", &format!(r#","paid_at":"{}"{more}"#, ago(5)));
    let candidate = |line: String| {
        read_with(&Terms { accept_refunds: true, ..terms() }, Format::Jsonl, line).all.remove(0).unwrap()
    };
    let stored = |line: String| {
        let input = crate::domain::Input::Arrived { new: candidate(line).new, verdict: Err(Reason::NoRoute) };
        let policy = Config::default().policy();
        match crate::domain::decide(None, &input, now(), &policy) {
            crate::domain::Decision::Apply(transition) => transition.after,
            crate::domain::Decision::Keep(why) => panic!("{why:?}"),
        }
    };
    let (unpaid, first) = (stored(order("a", "")), stored(paid(r#","payment_id":"p-1""#)));
    assert_eq!(candidate(order("a", "")).stands_to(&unpaid), Stands::There);
    assert_eq!(candidate(order("a", "")).stands_to(&first), Stands::There);
    assert_eq!(candidate(paid("")).stands_to(&unpaid), Stands::Pays);
    assert_eq!(candidate(paid("")).stands_to(&first), Stands::There);
    let differs = |line: String, field: &str| match candidate(line).stands_to(&first) {
        Stands::Differs(problem) => assert_eq!(problem.field.as_deref(), Some(field)),
        stands @ (Stands::There | Stands::Pays) => panic!("{stands:?}"),
    };
    differs(paid(r#","payment_id":"p-2""#), "payment_id");
    differs(paid("").replace("5000", "6000"), "order_id");
    differs(paid("").replace("13800000001", "13800000002"), "order_id");
}
