//! The fuzzing ring: everything that reads bytes from outside gets bytes that mean nothing, spoiled forms of what is valid,
//! and giants of the forms that have cost somebody memory or time. Nothing may panic, and nothing may take more memory than
//! a stated factor of its input and a stated constant: [`fuzz::allocation`] counts that, for each thread.
//!
//! Every run draws the same. `WINDLASS_FUZZ_CASES` says how many inputs each decoder gets (256), `WINDLASS_FUZZ_SEED` draws
//! others (a number, 0). Only what is made with fresh keys differs: sealed blobs, ciphertexts, private keys.
//!
//! | what comes from outside | where it is read | tested in |
//! |---|---|---|
//! | API bodies: submission, batch, cancel, cancel by filter and by ids, tokens, deploy keys, none | `api/body.rs`, `spec/` | `bodies`, `cluster` |
//! | queries, cursors, headers, path ids; answers of other coordinators | `api/{query,cursor,filter,accept,auth,stream}.rs` | `bodies`, `values`, `cluster` |
//! | raw bytes on the HTTP socket | actix-web | `cluster` |
//! | bus messages of both directions, hints, offers, events | `wire.rs`, `job/`, `cloud_event.rs` | `messages`, `cluster` |
//! | proofs, subjects, what NATS answers, a server's version | `proof.rs`, `bus/nats/` | `messages`, `values`, `cluster` |
//! | sealed blobs, recipients, stored ciphertexts, master keys | `seal.rs`, `vault.rs` | `secrets`, `values` |
//! | private keys, host keys, the ssh-agent's requests | `keys/`, `worker/src/ssh_agent.rs` | `secrets`, `agent` |
//! | rows of the store | `store/*/row.rs`, by the types' own decoders | `values` |
//! | spool, identity, count of starts, the keeper's frames | `worker/src/spool/`, `worker/src/identity.rs`, `keeper/protocol.rs` | `disk` |
//! | what git and the kernel say | `checkout/`, `keeper/{tree,cgroup}.rs` | `git` |
//! | a step's output: masking, lines; secrets as forms | `output/` | `output` |
//! | settings, times, periods, ids | `settings.rs`, `time.rs`, `id.rs` | `values`, `client` |
//! | the server's answers and event streams, as the command line reads them | `cli/src/client/` | `client`, `values` |

mod fuzz {
    mod agent;
    mod allocation;
    mod bodies;
    mod campaign;
    mod client;
    mod cluster;
    mod disk;
    mod giants;
    mod git;
    mod messages;
    mod output;
    mod samples;
    mod secrets;
    mod spoiling;
    mod values;
}
