//! Events of Kinesis.
//!
//! ```json
//! {"Records": [{"eventSource": "aws:kinesis", "eventID": "shardId-000000000006:49590338…",
//!   "eventSourceARN": "arn:aws:kinesis:…:stream/logs",
//!   "kinesis": {"sequenceNumber": "49590338…", "data": "base64",
//!     "approximateArrivalTimestamp": 1545084650.987}}]}
//! ```
//!
//! Producers save on records by putting several log records into one: as an aggregate of the Kinesis
//! Producer Library, as lines, as a JSON list, any of them compressed. Each becomes a record of its own,
//! numbered within its sequence number.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::pieces::each_piece;
use super::{DecodeFault, Envelope, Event, EventError, Payload, Record, Source, kpl, name};
use crate::origin::Origin;

/// Most log records in one record of the stream: as many as a batch of Kafka has.
const MAX_PIECES: usize = 10_000;
/// Most bytes of one record's payload when it is decompressed. A record has at most 10 MB compressed,
/// and a line repeated for ever shrinks to nothing: without a limit it would fill the memory.
const MAX_UNCOMPRESSED_LEN: usize = 16 << 20;
/// Largest window of zstd, as a power of two: 8 MiB, which every decoder must have. It is memory.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

pub(super) fn decode<'a>(envelope: &Envelope<'a>) -> Result<Event<'a>, EventError> {
    let texts = envelope.list()?;
    let len: usize = texts.iter().map(|text| text.get().len()).sum();
    let mut event = Event::empty(Source::Kinesis, len / 4 * 3);
    let mut streams = Streams::default();
    let mut shards: HashMap<Arc<str>, usize> = HashMap::new();
    for (index, text) in texts.into_iter().enumerate() {
        let text = text.get();
        let group = event.groups.len();
        match Place::read(text, &mut streams) {
            Ok((place, data)) => {
                event.groups.push(place.sequence_number.to_string());
                let shard = shards.entry(Arc::clone(&place.shard)).or_insert_with(|| {
                    event.groups.push(place.shard.to_string());
                    event.groups.len() - 1
                });
                push(&mut event, Filed { group, stream: *shard }, text, &place, data);
            }
            Err(fault) => {
                event.groups.push(String::new());
                event.push_unplaced(group, index, text, fault);
            }
        }
    }
    Ok(event)
}

/// What is read of a record; fields of any type.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "eventID")]
    event_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "eventSourceARN")]
    event_source_arn: Option<&'a RawValue>,
    #[serde(borrow)]
    kinesis: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inner<'a> {
    #[serde(borrow)]
    sequence_number: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    approximate_arrival_timestamp: Option<&'a RawValue>,
}

/// Under which names of the event a record is: its key and its shard.
#[derive(Clone, Copy)]
struct Filed {
    group: usize,
    stream: usize,
}

/// Where a record of the stream stands.
struct Place {
    stream: Arc<str>,
    shard: Arc<str>,
    sequence_number: Arc<str>,
    timestamp_ms: Option<i64>,
}

/// The last stream and shard, which most records share with their neighbours.
#[derive(Default)]
struct Streams(Option<(Arc<str>, Arc<str>)>);

impl Streams {
    fn shared(&mut self, stream: &str, shard: &str) -> (Arc<str>, Arc<str>) {
        match &self.0 {
            Some((known, of)) if **known == *stream && **of == *shard => {
                (known.clone(), of.clone())
            }
            _ => self.0.insert((stream.into(), shard.into())).clone(),
        }
    }
}

impl Place {
    fn read<'a>(
        text: &'a str,
        streams: &mut Streams,
    ) -> Result<(Self, Option<&'a RawValue>), DecodeFault> {
        let place = |field, expected| DecodeFault::Place { field, expected };
        if !text.starts_with('{') {
            return Err(DecodeFault::NotAnObject);
        }
        let fields: Fields<'a> =
            serde_json::from_str(text).map_err(|error| DecodeFault::Record(Arc::new(error)))?;
        let inner = fields.kinesis.filter(|inner| inner.get().starts_with('{'));
        let inner = inner.ok_or(place("kinesis", "an object"))?;
        let inner: Inner<'a> = serde_json::from_str(inner.get())
            .map_err(|error| DecodeFault::Record(Arc::new(error)))?;
        let sequence_number = name(inner.sequence_number)
            .ok_or(place("kinesis.sequenceNumber", "a string that is not empty"))?;
        let event_id = name(fields.event_id);
        let shard = event_id.as_deref().and_then(|id| id.split_once(':')).map(|(shard, _)| shard);
        let shard = shard.ok_or(place("eventID", "a shard and a sequence number"))?;
        let arn = name(fields.event_source_arn);
        let stream = arn.as_deref().and_then(|arn| arn.split_once(":stream/"));
        let (_, stream) = stream.ok_or(place("eventSourceARN", "the ARN of a stream"))?;
        let (stream, shard) = streams.shared(stream, shard);
        let timestamp_ms = inner.approximate_arrival_timestamp.and_then(milliseconds);
        let place = Self { stream, shard, sequence_number: sequence_number.into(), timestamp_ms };
        Ok((place, inner.data))
    }

    fn record<'a>(
        &self,
        filed: Filed,
        index: usize,
        payload: Payload<'a>,
        fault: Option<DecodeFault>,
    ) -> Record<'a> {
        let origin = Origin::Kinesis {
            stream: Arc::clone(&self.stream),
            shard: Arc::clone(&self.shard),
            sequence_number: Arc::clone(&self.sequence_number),
            index,
        };
        let Filed { group, stream } = filed;
        Record { origin, timestamp_ms: self.timestamp_ms, group, stream, payload, fault }
    }
}

/// Seconds with a fraction, in milliseconds.
fn milliseconds(raw: &RawValue) -> Option<i64> {
    let seconds: f64 = raw.get().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds until the year 287396 fit")]
    (0.0..9e12).contains(&seconds).then(|| (seconds * 1e3).round() as i64)
}

/// Adds the log records of one record of the stream.
fn push<'a>(
    event: &mut Event<'a>,
    filed: Filed,
    text: &'a str,
    place: &Place,
    data: Option<&RawValue>,
) {
    let data = data.and_then(super::text);
    let data = data.and_then(|data| base64_simd::STANDARD.decode_to_vec(data).ok());
    let Some(data) = data else {
        let fault = Some(DecodeFault::Base64);
        event.records.push(place.record(filed, 0, Payload::Text(text), fault));
        return;
    };
    let (records_before, bytes_before) = (event.records.len(), event.decoded.len());
    if let Err(fault) = push_pieces(event, filed, place, &data) {
        event.records.truncate(records_before);
        event.decoded.truncate(bytes_before);
        let payload = if fault.comes_again() { Payload::Text(text) } else { event.keep(&data) };
        event.records.push(place.record(filed, 0, payload, Some(fault)));
    }
}

fn push_pieces(
    event: &mut Event<'_>,
    filed: Filed,
    place: &Place,
    data: &[u8],
) -> Result<(), DecodeFault> {
    let mut index = 0;
    let mut uncompressed_len = 0;
    let mut push_all = |user_record: &[u8]| {
        let uncompressed = uncompressed(user_record)?;
        let payload = uncompressed.as_deref().unwrap_or(user_record);
        uncompressed_len += payload.len();
        if uncompressed_len > MAX_UNCOMPRESSED_LEN {
            return Err(DecodeFault::TooLong { limit: MAX_UNCOMPRESSED_LEN });
        }
        let mut result = Ok(());
        each_piece(payload, |piece| {
            if result.is_err() {
            } else if index == MAX_PIECES {
                result = Err(DecodeFault::TooManyPieces { limit: MAX_PIECES });
            } else if !event.has_room(1, piece.len()) {
                result = Err(DecodeFault::NoRoom);
            } else {
                let payload = event.keep(piece);
                event.records.push(place.record(filed, index, payload, None));
                index += 1;
            }
        });
        result
    };
    match kpl::user_records(data) {
        Some(records) => records?.iter().try_for_each(|record| push_all(record))?,
        None => push_all(data)?,
    }
    if index == 0 { Err(DecodeFault::Empty) } else { Ok(()) }
}

/// A payload without its compression; `None` if it has none.
fn uncompressed(payload: &[u8]) -> Result<Option<Vec<u8>>, DecodeFault> {
    let mut bytes = Vec::new();
    // One more than the limit, to tell what is as long from what is longer.
    let limit = MAX_UNCOMPRESSED_LEN as u64 + 1;
    let read = if payload.starts_with(GZIP_MAGIC) {
        flate2::read::MultiGzDecoder::new(payload).take(limit).read_to_end(&mut bytes)
    } else if payload.starts_with(ZSTD_MAGIC) {
        zstd::Decoder::with_buffer(payload).and_then(|mut decoder| {
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            decoder.take(limit).read_to_end(&mut bytes)
        })
    } else {
        return Ok(None);
    };
    read.map_err(|error| DecodeFault::Compressed(Arc::new(error)))?;
    if bytes.len() > MAX_UNCOMPRESSED_LEN {
        return Err(DecodeFault::TooLong { limit: MAX_UNCOMPRESSED_LEN });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::kpl::tests::aggregate;
    use super::*;

    fn record(sequence_number: u32, data: &[u8]) -> String {
        let data = base64_simd::STANDARD.encode_to_string(data);
        format!(
            r#"{{"eventSource":"aws:kinesis","eventID":"shardId-06:{sequence_number}",
            "eventSourceARN":"arn:aws:kinesis:eu-central-1:1:stream/logs",
            "kinesis":{{"sequenceNumber":"{sequence_number}","data":"{data}",
            "approximateArrivalTimestamp":1545084650.9874}}}}"#
        )
    }

    fn event(records: &[String]) -> Box<RawValue> {
        let json = format!(r#"{{"Records":[{}]}}"#, records.join(","));
        RawValue::from_string(json).expect("json")
    }

    /// Identity and payload of every record.
    fn read(raw: &RawValue) -> Vec<(String, Result<String, String>)> {
        let event = Event::decode(raw).expect("an event");
        let of = |record: &Record<'_>| {
            let payload = event.payload(record).map(|bytes| String::from_utf8_lossy(bytes).into());
            (record.origin.identity(), payload.map_err(ToString::to_string))
        };
        event.records.iter().map(of).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("written")
    }

    #[test]
    fn each_log_record_is_numbered_within_its_sequence_number() {
        let zstd = zstd::encode_all(&b"{\"a\":5}\n{\"a\":6}"[..], 3).expect("compressed");
        let raw = event(&[
            record(1, b"{\"a\":1}"),
            record(2, b"{\"a\":2}\n{\"a\":3}\n"),
            record(3, br#"[{"a":4}]"#),
            record(4, &aggregate(&[b"x", b"y\nz"])),
            record(5, &zstd),
            record(6, &gzip(b"{\"a\":7}")),
        ]);
        let expected = [
            ("1/0", "{\"a\":1}"),
            ("2/0", "{\"a\":2}"),
            ("2/1", "{\"a\":3}"),
            ("3/0", "{\"a\":4}"),
            ("4/0", "x"),
            ("4/1", "y"),
            ("4/2", "z"),
            ("5/0", "{\"a\":5}"),
            ("5/1", "{\"a\":6}"),
            ("6/0", "{\"a\":7}"),
        ]
        .map(|(at, text)| (format!("kinesis/logs/shardId-06/{at}"), Ok(text.to_owned())));
        assert_eq!(read(&raw), expected);
        let event = Event::decode(&raw).expect("an event");
        assert_eq!(event.records[0].timestamp_ms, Some(1_545_084_650_987));
        assert_eq!(event.group(&event.records[2]), "2");
    }

    #[test]
    fn what_can_not_be_read_is_one_poison_record_with_its_bytes() {
        let good = record(9, b"good");
        let mut broken = aggregate(&[b"x"]);
        broken[5] ^= 1;
        let many = b"a\n".repeat(MAX_PIECES + 1);
        let bomb = gzip(&vec![b'a'; MAX_UNCOMPRESSED_LEN + 1]);
        for (what, data, fault) in [
            ("a broken aggregate", &broken[..], "its digest is another"),
            ("an empty payload", b" \n", "it is empty"),
            ("an aggregate of nothing", &aggregate(&[]), "it is empty"),
            ("too many lines", &many, "more than 10000 log records"),
            ("a bomb", &bomb, "more than 16777216 bytes"),
            ("half a gzip", &gzip(b"abc")[..15], "its compressed payload can't be read"),
        ] {
            let raw = event(&[record(1, data), good.clone()]);
            let records = read(&raw);
            assert_eq!(records.len(), 2, "{what}");
            let (identity, got) = &records[0];
            assert_eq!(identity, "kinesis/logs/shardId-06/1/0", "{what}");
            let got = got.as_ref().expect_err(what);
            assert!(got.contains(fault), "{what}: {got}");
            let event = Event::decode(&raw).expect("an event");
            assert_eq!(event.original(&event.records[0]), data, "{what}");
            assert_eq!(records[1].1.as_deref(), Ok("good"), "{what}");
        }
    }

    #[test]
    fn a_record_without_a_place_is_poison_and_has_its_text_kept() {
        let sound = record(1, b"a");
        for (from, to, fault) in [
            (r#""sequenceNumber":"1""#, r#""sequenceNumber":7"#, "kinesis.sequenceNumber"),
            ("shardId-06:1", "shardId", "its eventID is not"),
            (":stream/logs", ":table/logs", "its eventSourceARN is not"),
            (r#""kinesis":{"#, r#""kinesis":[],"else":{"#, "its kinesis is not an object"),
            (r#""eventID""#, r#""kinesis":1,"eventID""#, "duplicate field"),
        ] {
            let raw = event(&[record(9, b"good"), sound.replace(from, to)]);
            let records = read(&raw);
            assert!(records[1].0.starts_with("unplaced/aws%3Akinesis/1/"), "{}", records[1].0);
            let got = records[1].1.as_ref().expect_err(fault);
            assert!(got.contains(fault), "{got}");
        }
        let raw = event(&[sound.replace(r#""data":""#, r#""data":"*"#)]);
        let records = read(&raw);
        assert_eq!(records[0].0, "kinesis/logs/shardId-06/1/0");
        assert_eq!(records[0].1, Err("its value is not base64".into()));
    }

    #[test]
    fn what_there_is_no_room_for_comes_again() {
        let lines = "a\n".repeat(MAX_PIECES);
        let records: Vec<String> = (0..11).map(|at| record(at, lines.as_bytes())).collect();
        let raw = event(&records);
        let event = Event::decode(&raw).expect("an event");
        assert_eq!(event.records.len(), super::super::MAX_LOG_RECORDS + 1);
        let last = event.records.last().expect("a record");
        let fault = event.payload(last).expect_err("no room");
        assert!(fault.comes_again() && matches!(fault, DecodeFault::NoRoom), "{fault}");
        assert_eq!(event.group(last), "10");
    }
}
