//! A Kafka client of six requests, written by hand from the protocol guide.
//!
//! It shares no code with `fulmar-wire` on purpose: a mistake made on both sides of one codec
//! cancels out, and this one would show it. Blocking sockets, one request at a time.
//!
//! ```text
//! request    size i32 | key i16 | version i16 | correlation i32 | client id string | body
//! response   size i32 | correlation i32 | body
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PRODUCE: (i16, i16) = (0, 3);
const FETCH: (i16, i16) = (1, 4);
const METADATA: (i16, i16) = (3, 1);
const API_VERSIONS: (i16, i16) = (18, 0);
const CREATE_TOPICS: (i16, i16) = (19, 2);
const ALTER_CONFIGS: (i16, i16) = (33, 0);

/// How long an answer may take. A site without a majority answers late or never.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A partition, as a broker describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub index: i32,
    /// The node that takes writes for it; -1 if there is none.
    pub leader: i32,
}

/// What a broker says about its site.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// The nodes and where they listen.
    pub brokers: BTreeMap<i32, SocketAddr>,
    /// The partitions of the topic that was asked for.
    pub partitions: Vec<Partition>,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands in its partition.
    pub offset: i64,
    /// What is in it.
    pub value: Vec<u8>,
}

/// A connection to one broker.
pub struct Client {
    stream: TcpStream,
    correlation: i32,
    /// What speaks TLS for us, if anything does.
    _tunnel: Option<Tunnel>,
}

/// `openssl s_client` between us and a broker.
struct Tunnel(Child);

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// The error code of an answer, as an error.
fn refused(request: &str, code: i16) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::other(format!("{request}: error {code}"))) }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream, correlation: 0, _tunnel: None })
    }

    /// Connects with TLS: with the authority in a directory and the keys of somebody there. Needs `openssl`.
    ///
    /// # Errors
    /// If the program cannot be run. That nobody listens is seen with the first request.
    pub fn connect_as(address: SocketAddr, keys: &Path, name: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = Self::connect(listener.local_addr()?)?;
        let (inside, _) = listener.accept()?;
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-verify_return_error"]);
        openssl.args(["-connect", &address.to_string()]);
        openssl.arg("-CAfile").arg(keys.join("authority.crt"));
        openssl.arg("-cert").arg(keys.join(format!("{name}.crt")));
        openssl.arg("-key").arg(keys.join(format!("{name}.key")));
        openssl.stdin(OwnedFd::from(inside.try_clone()?)).stdout(OwnedFd::from(inside));
        openssl.stderr(Stdio::null());
        client._tunnel = Some(Tunnel(openssl.spawn()?));
        Ok(client)
    }

    /// Our end of the connection.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sets all settings of a thing, of which the protocol knows what kind it is by a number.
    ///
    /// # Errors
    /// If the connection breaks, or the broker refuses.
    pub fn alter(&mut self, (kind, name): (i8, &str), settings: &[(&str, &str)]) -> io::Result<()> {
        let mut body = Writer::default();
        body.i32(1).i8(kind).string(name);
        body.i32(i32::try_from(settings.len()).expect("a few settings"));
        for (name, value) in settings {
            body.string(name).string(value);
        }
        body.i8(0);
        let mut answer = self.call(ALTER_CONFIGS, &body.0)?;
        answer.skip(4)?;
        if answer.i32()? != 1 {
            return Err(invalid("one thing was altered, and another number answered"));
        }
        refused("altering", answer.i16()?)
    }

    fn send(&mut self, (key, version): (i16, i16), body: &[u8]) -> io::Result<()> {
        self.correlation += 1;
        let mut frame = Writer::default();
        frame.i16(key).i16(version).i32(self.correlation).string("fulmar-tests");
        let mut bytes = i32::try_from(frame.0.len() + body.len())
            .map_err(|_| invalid("a request of 2 GiB"))?
            .to_be_bytes()
            .to_vec();
        bytes.extend_from_slice(&frame.0);
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes)
    }

    fn call(&mut self, request: (i16, i16), body: &[u8]) -> io::Result<Reader> {
        self.send(request, body)?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = u32::from_be_bytes(size) as usize;
        if !(4..=64 << 20).contains(&size) {
            return Err(invalid(format!("an answer of {size} bytes")));
        }
        let mut bytes = vec![0; size];
        self.stream.read_exact(&mut bytes)?;
        let mut answer = Reader { bytes, at: 0 };
        if answer.i32()? != self.correlation {
            return Err(invalid("the answer to another request"));
        }
        Ok(answer)
    }

    /// The APIs of the broker: key, smallest and greatest version.
    ///
    /// # Errors
    /// If the broker does not answer, or refuses.
    pub fn api_versions(&mut self) -> io::Result<Vec<(i16, i16, i16)>> {
        let mut answer = self.call(API_VERSIONS, &[])?;
        refused("ApiVersions", answer.i16()?)?;
        answer.list(|entry| Ok((entry.i16()?, entry.i16()?, entry.i16()?)))
    }

    /// Creates a topic. One that is there already is no error.
    ///
    /// # Errors
    /// If the broker does not answer, or refuses.
    pub fn create_topic(&mut self, topic: &str, partitions: i32) -> io::Result<()> {
        const TOPIC_ALREADY_EXISTS: i16 = 36;
        let mut body = Writer::default();
        body.i32(1).string(topic).i32(partitions).i16(-1).i32(0).i32(0).i32(5_000).i8(0);
        let mut answer = self.call(CREATE_TOPICS, &body.0)?;
        answer.i32()?;
        let codes = answer.list(|entry| {
            entry.string()?;
            let code = entry.i16()?;
            entry.string()?;
            Ok(code)
        })?;
        match codes.as_slice() {
            [0 | TOPIC_ALREADY_EXISTS] => Ok(()),
            [code] => refused("CreateTopics", *code),
            _ => Err(invalid("CreateTopics: not one answer")),
        }
    }

    /// The nodes, and the partitions of one topic.
    ///
    /// # Errors
    /// If the broker does not answer, or refuses.
    pub fn metadata(&mut self, topic: &str) -> io::Result<Metadata> {
        let mut body = Writer::default();
        body.i32(1).string(topic);
        let mut answer = self.call(METADATA, &body.0)?;
        let brokers = answer.list(|broker| {
            let (id, host, port) = (broker.i32()?, broker.string()?, broker.i32()?);
            broker.string()?;
            let address = format!("{host}:{port}").parse();
            Ok((id, address.map_err(|_| invalid(format!("{host}:{port} is no address")))?))
        })?;
        answer.i32()?;
        let topics = answer.list(|entry| {
            let code = entry.i16()?;
            entry.string()?;
            entry.i8()?;
            let partitions = entry.list(|partition| {
                partition.i16()?;
                let (index, leader) = (partition.i32()?, partition.i32()?);
                partition.list(Reader::i32)?;
                partition.list(Reader::i32)?;
                Ok(Partition { index, leader })
            })?;
            Ok((code, partitions))
        })?;
        let [(code, partitions)] = topics.as_slice() else {
            return Err(invalid("Metadata: not one topic"));
        };
        refused("Metadata", *code)?;
        let brokers = brokers.into_iter().collect();
        Ok(Metadata { brokers, partitions: partitions.clone() })
    }

    /// Writes records with acks=all and returns the offset of the first.
    ///
    /// # Errors
    /// If the broker does not answer, or refuses. They may have been written all the same.
    pub fn produce(&mut self, topic: &str, partition: i32, values: &[&[u8]]) -> io::Result<i64> {
        let batch = batch(values);
        let mut body = Writer::default();
        body.i16(-1).i16(-1).i32(5_000).i32(1).string(topic).i32(1).i32(partition).bytes(&batch);
        let mut answer = self.call(PRODUCE, &body.0)?;
        let topics = answer.list(|entry| {
            entry.string()?;
            entry.list(|answer| {
                answer.i32()?;
                let (code, offset) = (answer.i16()?, answer.i64()?);
                answer.i64()?;
                Ok((code, offset))
            })
        })?;
        match topics.concat().as_slice() {
            [(code, offset)] => refused("Produce", *code).map(|()| *offset),
            _ => Err(invalid("Produce: not one answer")),
        }
    }

    /// Reads records from an offset on, and says how far there are committed ones.
    ///
    /// # Errors
    /// If the broker does not answer, or refuses, or answers with a damaged batch.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> io::Result<(Vec<Record>, i64)> {
        let mut body = Writer::default();
        body.i32(-1).i32(100).i32(1).i32(8 << 20).i8(0).i32(1).string(topic);
        body.i32(1).i32(partition).i64(offset).i32(4 << 20);
        let mut answer = self.call(FETCH, &body.0)?;
        answer.i32()?;
        let topics = answer.list(|entry| {
            entry.string()?;
            entry.list(|partition| {
                partition.i32()?;
                let (code, high_watermark) = (partition.i16()?, partition.i64()?);
                partition.i64()?;
                partition.list(|aborted| Ok((aborted.i64()?, aborted.i64()?)))?;
                Ok((code, high_watermark, partition.bytes()?))
            })
        })?;
        let Some((code, high_watermark, bytes)) = topics.into_iter().flatten().next() else {
            return Err(invalid("Fetch: no answer"));
        };
        refused("Fetch", code)?;
        let mut records = records(bytes)?;
        // A batch is sent whole, also where the offset lies inside it.
        records.retain(|record| record.offset >= offset);
        Ok((records, high_watermark))
    }
}

/// Reads a partition from its start to its high watermark.
///
/// # Errors
/// As [`Client::fetch`].
pub fn read_all(client: &mut Client, topic: &str, partition: i32) -> io::Result<Vec<Record>> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let offset = all.last().map_or(0, |record| record.offset + 1);
        let (records, high_watermark) = client.fetch(topic, partition, offset)?;
        let stuck = records.is_empty();
        all.extend(records);
        let reached = all.last().map_or(0, |record| record.offset + 1);
        if reached >= high_watermark {
            return Ok(all);
        }
        if stuck {
            return Err(invalid(format!("nothing at {offset}, below {high_watermark}")));
        }
    }
}

/// A record batch of version 2, uncompressed, without keys.
///
/// ```text
/// base offset i64 | length i32 | leader epoch i32 | magic i8 = 2 | crc u32 of what follows
/// attributes i16 | last delta i32 | first and last time i64 | producer i64, i16, i32 | count i32
/// ```
fn batch(values: &[&[u8]]) -> Vec<u8> {
    let count = i32::try_from(values.len()).expect("a few records");
    let mut tail = Writer::default();
    tail.i16(0).i32(count - 1).i64(0).i64(0).i64(-1).i16(-1).i32(-1).i32(count);
    for (at, value) in values.iter().enumerate() {
        let mut record = Writer::default();
        let len = i64::try_from(value.len()).expect("a short record");
        record.i8(0).varint(0).varint(at as i64).varint(-1).varint(len);
        record.0.extend_from_slice(value);
        record.varint(0);
        tail.varint(record.0.len() as i64);
        tail.0.extend_from_slice(&record.0);
    }
    let mut batch = Writer::default();
    let len = i32::try_from(tail.0.len() + 9).expect("a short batch");
    batch.i64(0).i32(len).i32(-1).i8(2).i32(crc32c::crc32c(&tail.0).cast_signed());
    batch.0.extend_from_slice(&tail.0);
    batch.0
}

/// The records of some batches; the last one may be cut off.
fn records(bytes: Vec<u8>) -> io::Result<Vec<Record>> {
    let mut reader = Reader { bytes, at: 0 };
    let mut records = Vec::new();
    while reader.rest() >= 12 {
        let (base, len) = (reader.i64()?, reader.i32()?);
        let len = usize::try_from(len).map_err(|_| invalid("a batch of negative length"))?;
        if reader.rest() < len {
            break;
        }
        let end = reader.at + len;
        reader.i32()?;
        let (magic, crc) = (reader.i8()?, reader.i32()?.cast_unsigned());
        if magic != 2 || crc32c::crc32c(&reader.bytes[reader.at..end]) != crc {
            return Err(invalid(format!("the batch at offset {base} is damaged")));
        }
        if reader.i16()? & 7 != 0 {
            return Err(invalid("a compressed batch, which nobody wrote"));
        }
        reader.skip(4 + 8 + 8 + 8 + 2 + 4)?;
        for _ in 0..reader.i32()? {
            reader.varint()?;
            reader.i8()?;
            reader.varint()?;
            let offset = base + reader.varint()?;
            let key = usize::try_from(reader.varint()?.max(0)).unwrap_or(0);
            reader.skip(key)?;
            let len = usize::try_from(reader.varint()?.max(0)).unwrap_or(0);
            let value = reader.take(len)?.to_vec();
            if reader.varint()? != 0 {
                return Err(invalid("a header, which nobody wrote"));
            }
            records.push(Record { offset, value });
        }
        if reader.at != end {
            return Err(invalid(format!("the batch at offset {base} has another length")));
        }
    }
    Ok(records)
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn i8(&mut self, value: i8) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    fn i16(&mut self, value: i16) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    fn i64(&mut self, value: i64) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    fn string(&mut self, text: &str) -> &mut Self {
        let len = i16::try_from(text.len()).expect("a short name");
        self.i16(len).put(text.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let len = i32::try_from(bytes.len()).expect("a short batch");
        self.i32(len).put(bytes)
    }

    fn varint(&mut self, value: i64) -> &mut Self {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.0.push((rest as u8 & 0x7f) | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
        self
    }
}

struct Reader {
    bytes: Vec<u8>,
    at: usize,
}

impl Reader {
    fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, len: usize) -> io::Result<&[u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| invalid("the answer ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, len: usize) -> io::Result<()> {
        self.take(len).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    fn i8(&mut self) -> io::Result<i8> {
        self.array().map(i8::from_be_bytes)
    }

    fn i16(&mut self) -> io::Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> io::Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> io::Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A string; an absent one is empty.
    fn string(&mut self) -> io::Result<String> {
        let len = usize::try_from(self.i16()?).unwrap_or(0);
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| invalid("a name that is no text"))
    }

    /// Bytes; absent ones are empty.
    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.i32()?).unwrap_or(0);
        Ok(self.take(len)?.to_vec())
    }

    fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> io::Result<T>,
    ) -> io::Result<Vec<T>> {
        (0..self.i32()?).map(|_| element(self)).collect()
    }

    fn varint(&mut self) -> io::Result<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(invalid("an endless number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_back_as_it_was() {
        let long = vec![b'x'; 70_000];
        let values: [&[u8]; 3] = [b"one", b"", &long];
        let mut bytes = batch(&values);
        bytes.extend_from_slice(&batch(&[b"four"]));
        let read = records(bytes.clone()).expect("whole");
        let back: Vec<&[u8]> = read.iter().map(|record| record.value.as_slice()).collect();
        assert_eq!(back, [b"one".as_slice(), b"", &long, b"four"]);
        assert_eq!(read[2].offset, 2);
        bytes.pop();
        assert_eq!(records(bytes.clone()).expect("the last one is cut off").len(), 3);
        bytes[100] ^= 1;
        assert!(records(bytes).is_err());
    }

    #[test]
    fn numbers_of_any_length_come_back() {
        for value in [0, -1, 1, 63, 64, -64, -65, 1 << 20, i64::MAX, i64::MIN] {
            let mut writer = Writer::default();
            writer.varint(value);
            assert_eq!(Reader { bytes: writer.0, at: 0 }.varint().expect("whole"), value);
        }
    }
}
