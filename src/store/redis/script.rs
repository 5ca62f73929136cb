//! Scripts, and what they answer.

use std::vec::IntoIter;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};

use crate::store::StoreError;
use crate::store::redis::fault::RedisFault;

/// A script, with the name the server gives it: the SHA-1 of its text.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    name: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, name: redis::Script::new(text).get_hash().to_owned() }
    }

    /// The beginning of a call: keys, then the number that the script echoes. Arguments follow.
    pub(super) fn call(&self, keys: &[impl AsRef<[u8]>], echo: u64) -> Cmd {
        begin(("EVALSHA", &self.name), keys, echo)
    }

    /// The same with the script itself, for a transaction: there it cannot be shown to the server when
    /// that turns out not to know it.
    pub(super) fn whole_call(&self, keys: &[impl AsRef<[u8]>], echo: u64) -> Cmd {
        begin(("EVAL", self.text), keys, echo)
    }

    /// Runs a call, and right behind it, on the same connection, `then`: the answers of both. A
    /// server that has not seen the script since it started is shown it first.
    pub(super) async fn run(
        &self,
        cmd: &Cmd,
        then: Option<&Cmd>,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<(Value, Value)> {
        let missing = ErrorKind::Server(ServerErrorKind::NoScript);
        match send(cmd, then, connection).await {
            Err(error) if error.kind() == missing => {
                let mut load = Cmd::new();
                load.arg("SCRIPT").arg("LOAD").arg(self.text);
                load.query_async::<String>(connection).await?;
                send(cmd, then, connection).await
            }
            answered => answered,
        }
    }
}

fn begin((command, script): (&str, &str), keys: &[impl AsRef<[u8]>], echo: u64) -> Cmd {
    let mut cmd = Cmd::new();
    cmd.arg(command).arg(script).arg(keys.len());
    for key in keys {
        cmd.arg(key.as_ref());
    }
    cmd.arg(echo);
    cmd
}

async fn send(
    cmd: &Cmd,
    then: Option<&Cmd>,
    connection: &mut MultiplexedConnection,
) -> RedisResult<(Value, Value)> {
    let Some(then) = then else { return Ok((cmd.query_async(connection).await?, Value::Nil)) };
    let mut answers = send_all([cmd, then].into_iter().cloned(), connection).await?.into_iter();
    let mut next = || answers.next().unwrap_or(Value::Nil).extract_error();
    Ok((next()?, next()?))
}

/// Sends commands right behind one another: their answers, of which any may be an error.
pub(super) async fn send_all(
    cmds: impl Iterator<Item = Cmd>,
    connection: &mut MultiplexedConnection,
) -> RedisResult<Vec<Value>> {
    let mut all = redis::pipe();
    for cmd in cmds {
        all.add_command(cmd);
    }
    connection.send_packed_commands(&all, 0, all.len()).await
}

/// What a script answered after its echo, taken from the front.
#[derive(Debug, Default)]
pub(super) struct Answer {
    values: IntoIter<Value>,
    /// The number of the connection it came by.
    pub(super) connection: u64,
}

impl Answer {
    /// The answer, if it is to call number `echo`.
    pub(super) fn to(echo: u64, value: Value, connection: u64) -> Option<Self> {
        let Value::Array(values) = value else { return None };
        let mut values = values.into_iter();
        let Value::BulkString(text) = values.next()? else { return None };
        let number = std::str::from_utf8(&text).ok()?.parse().ok();
        (number == Some(echo)).then_some(Self { values, connection })
    }

    /// A number.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        match self.values.next() {
            Some(Value::Int(number)) => u64::try_from(number).map_err(|_negative| mismatch()),
            _ => Err(mismatch()),
        }
    }

    /// A string, or nil.
    pub(super) fn bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.values.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(Value::Nil) => Ok(None),
            _ => Err(mismatch()),
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.values.len() == 0
    }
}

fn mismatch() -> StoreError {
    RedisFault::Mismatch.met("read")
}
