//! An ssh-agent of one attempt's own: it holds the deploy key's private half in memory and signs with it for git, and for
//! nothing else.
//!
//! It lives in this process behind a socket that the worker's user alone can reach, and answers the processes of its own
//! attempt alone: those below the attempt's keeper. It knows two requests: to name its one identity, and to sign with it.
//! All others are refused. When it ends the socket is gone and so are its connections, and
//! with the last of them the key. What holds the key is wiped when dropped; the copies that the signing itself makes are
//! wiped by the crates behind it (`ed25519-dalek`, `p256`, `p384`, `rsa`), but not what they leave on the stack.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::rand_core::{CryptoRng, RngCore};
use rsa::sha2::{Digest, Sha256, Sha512};
use rsa::signature::Signer;
use rsa::{BigUint, RsaPrivateKey};
use shared::clock;
use shared::secret::Secret;
use ssh_agent_lib::agent::Session;
use ssh_agent_lib::async_trait;
use ssh_agent_lib::error::AgentError;
use ssh_agent_lib::proto::signature::{RSA_SHA2_256, RSA_SHA2_512};
use ssh_agent_lib::proto::{self, PublicCredential, Request, Response, SignRequest};
use ssh_agent_lib::ssh_encoding::{Decode, Encode};
use ssh_key::private::KeypairData;
use ssh_key::{Algorithm, HashAlg, PrivateKey, PublicKey, Signature};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::keeper::tree;

/// The most connections at once; more of them wait until one is closed.
const CONNECTIONS_MAX: usize = 16;
/// The most bytes of one request: 256 KiB, as in OpenSSH's own agent.
const REQUEST_BYTES_MAX: u32 = 256 * 1024;
/// The most bytes of a Unix socket's path on Linux.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// How soon a connection is taken again after the system had none to give.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why an agent can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the deploy key's private half can't be used: {0}")]
    Key(String),
    #[error(
        "{path} is too long for a socket's path, which has at most {SOCKET_PATH_BYTES_MAX} bytes: give the worker a \
         shorter data directory",
        path = path.display()
    )]
    TooLong { path: PathBuf },
    #[error("opening the ssh-agent's socket {path}: {source}", path = path.display())]
    Socket { path: PathBuf, source: io::Error },
}

/// An agent that answers. Dropping it removes its socket and ends its connections.
pub struct SshAgent {
    task: JoinHandle<()>,
    /// Ends it; taken when it was told to.
    stop: Option<oneshot::Sender<()>>,
    socket: PathBuf,
    public: String,
}

impl SshAgent {
    /// Begins to answer on a socket in `dir`, which no other user can enter, for a private key in OpenSSH's format.
    /// `keeper` and what runs below it are answered.
    ///
    /// # Errors
    /// When the key can't sign, or the socket can't be made.
    pub fn start(dir: &Path, private: &Secret, keeper: Pid) -> Result<Self, Error> {
        let key = PrivateKey::from_openssh(private.reveal()).map_err(|error| Error::Key(error.to_string()))?;
        let public = key.public_key().to_openssh().map_err(|error| Error::Key(error.to_string()))?;
        let identity = Identity::of(key)?;
        let name = u32::from_be_bytes(clock::random());
        let socket = dir.join(format!("{name:08x}"));
        if socket.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
            return Err(Error::TooLong { path: socket });
        }
        let listener = UnixListener::bind(&socket).map_err(|source| Error::Socket { path: socket.clone(), source })?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, Arc::new(identity), keeper, stopped));
        Ok(Self { task, stop: Some(stop), socket, public })
    }

    /// Where it answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The public half, as a line of OpenSSH.
    pub fn public_half(&self) -> &str {
        &self.public
    }

    /// Ends it. Returns when its socket, its connections and the key are gone.
    pub async fn end(mut self) {
        self.remove_socket();
        if let Some(stop) = self.stop.take() {
            // One that panicked is gone already.
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }

    fn remove_socket(&self) {
        if let Err(error) = std::fs::remove_file(&self.socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, socket = %self.socket.display(), "removing an ssh-agent's socket");
        }
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        self.task.abort();
        self.remove_socket();
    }
}

/// Takes connections until it is told to stop. When it returns, they are gone and so is its copy of the key.
async fn serve(listener: UnixListener, identity: Arc<Identity>, keeper: Pid, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(stream, Answers(identity.clone()), keeper))),
                Err(error) => {
                    tracing::warn!(%error, "an ssh-agent can't take a connection");
                    sleep(ACCEPT_AGAIN).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Answers one connection until its other side closes it or breaks the protocol; a stranger's isn't answered at all.
async fn converse(mut stream: UnixStream, mut answers: Answers, keeper: Pid) -> io::Result<()> {
    let peer = stream.peer_cred()?.pid().map(Pid::from_raw);
    let looked = move || peer.map_or(Ok(false), |peer| tree::is_below(peer, keeper));
    if !spawn_blocking(looked).await.map_err(io::Error::other)?? {
        tracing::warn!(?peer, "a process of nobody's attempt, or of another's, wanted an ssh-agent's answer");
        return Ok(());
    }
    loop {
        let length = stream.read_u32().await?;
        if length == 0 || length > REQUEST_BYTES_MAX {
            return Ok(());
        }
        let mut request = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        stream.read_exact(&mut request).await?;
        let answer = match Request::decode(&mut request.as_slice()) {
            Ok(request) => answers.handle(request).await.unwrap_or(Response::Failure),
            Err(_) => Response::Failure,
        };
        let mut framed = Vec::new();
        answer.encode_prefixed(&mut framed).map_err(io::Error::other)?;
        stream.write_all(&framed).await?;
    }
}

/// What is answered on one connection. What [`Session`] has beyond these two is refused by its own defaults.
struct Answers(Arc<Identity>);

#[async_trait]
impl Session for Answers {
    async fn request_identities(&mut self) -> Result<Vec<proto::Identity>, AgentError> {
        let credential = PublicCredential::Key(self.0.public.key_data().clone());
        Ok(vec![proto::Identity { credential, comment: String::new() }])
    }

    async fn sign(&mut self, request: SignRequest) -> Result<Signature, AgentError> {
        match &request.credential {
            PublicCredential::Key(key) if key == self.0.public.key_data() => {
                self.0.sign(&request.data, request.flags).map_err(|_| AgentError::Failure)
            }
            _ => Err(AgentError::Failure),
        }
    }
}

/// The one key.
struct Identity {
    public: PublicKey,
    half: Half,
}

/// The private half. RSA is apart: `ssh-key` 0.6.7 takes one prime for both and always signs with SHA-512.
enum Half {
    Rsa(Box<RsaPrivateKey>),
    Other(Box<PrivateKey>),
}

impl Identity {
    fn of(key: PrivateKey) -> Result<Self, Error> {
        let public = key.public_key().clone();
        let refused = |why: &str| Err(Error::Key(why.to_owned()));
        let half = match key.key_data() {
            KeypairData::Ed25519(_) | KeypairData::Ecdsa(_) => Half::Other(Box::new(key)),
            KeypairData::Rsa(pair) => {
                let number = |mpint| BigUint::try_from(mpint).map_err(|error: ssh_key::Error| error.to_string());
                let made = || {
                    let primes = vec![number(&pair.private.p)?, number(&pair.private.q)?];
                    let (n, e, d) = (number(&pair.public.n)?, number(&pair.public.e)?, number(&pair.private.d)?);
                    RsaPrivateKey::from_components(n, e, d, primes).map_err(|error| error.to_string())
                };
                Half::Rsa(Box::new(made().map_err(Error::Key)?))
            }
            KeypairData::Encrypted(_) => return refused("it has a passphrase"),
            _ => return refused("it is neither ed25519 nor rsa nor ecdsa"),
        };
        Ok(Self { public, half })
    }

    /// The signature that the flags of an agent's request ask for.
    fn sign(&self, data: &[u8], flags: u32) -> Result<Signature, ssh_key::Error> {
        let (hash, signed) = match &self.half {
            Half::Other(key) => return key.try_sign(data).map_err(Into::into),
            // The original RSA signature, with SHA-1, isn't made any more.
            Half::Rsa(key) if flags & RSA_SHA2_512 != 0 => {
                (HashAlg::Sha512, key.sign_with_rng(&mut Dice, Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(data)))
            }
            Half::Rsa(key) if flags & RSA_SHA2_256 != 0 => {
                (HashAlg::Sha256, key.sign_with_rng(&mut Dice, Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(data)))
            }
            Half::Rsa(_) => {
                return Err(ssh_key::Error::AlgorithmUnsupported { algorithm: Algorithm::Rsa { hash: None } });
            }
        };
        Signature::new(Algorithm::Rsa { hash: Some(hash) }, signed.map_err(|_| ssh_key::Error::Crypto)?)
    }
}

/// The system's randomness, as the crate `rsa` wants it: it blinds each signature, so that its time tells nothing.
struct Dice;

impl RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        u32::from_ne_bytes(clock::random())
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_ne_bytes(clock::random())
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        dest.chunks_mut(32).for_each(|chunk| chunk.copy_from_slice(clock::random::<32>().split_at(chunk.len()).0));
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Dice {}

#[cfg(test)]
mod tests;
