//! What a specification says of the deploy key that opens its repository.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Period;

/// The most tries that a policy may ask for.
pub const KEY_TRIES_MAX: u32 = 100;

/// The deploy key that a checkout uses, and what to do while it isn't registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployKey {
    /// The name that it is, or will be, registered under.
    pub name: String,
    /// What follows when the tries are spent.
    #[serde(default)]
    pub on_missing: OnMissing,
    /// How long a parked job waits for the key.
    #[schema(value_type = String, example = "10m")]
    pub wait: Period,
    /// How an attempt tries; the worker's own policy where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<KeyRetry>,
    /// Whether the steps may use the key as well, through an ssh-agent, instead of the checkout alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_steps: bool,
}

impl DeployKey {
    /// How long a parked job waits unless told otherwise: 10 minutes.
    pub const WAIT_DEFAULT: Period = Period::from_secs(10 * 60);

    /// The key of that name, everything else as it is by default.
    pub fn named(name: String) -> Self {
        Self { name, on_missing: OnMissing::default(), wait: Self::WAIT_DEFAULT, retry: None, in_steps: false }
    }
}

/// What becomes of a job whose deploy key isn't there after all tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// Its worker is let go, and it waits for the key.
    #[default]
    Park,
    /// It fails.
    Fail,
}

/// How often, and after which waits, a deploy key that isn't registered is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyRetry {
    /// 1 to 100, the first one included.
    pub tries: u32,
    pub backoff: KeyBackoff,
    /// The first wait, not longer than `max`; with jitter, as all of them.
    #[schema(value_type = String, example = "1s")]
    pub first: Period,
    /// The longest wait.
    #[schema(value_type = String, example = "30s")]
    pub max: Period,
    /// When the tries end though some are left, from the first one on; time in which nobody could answer doesn't count.
    #[schema(value_type = String, example = "2m")]
    pub deadline: Period,
}

impl Default for KeyRetry {
    fn default() -> Self {
        Self {
            tries: 5,
            backoff: KeyBackoff::Exponential,
            first: Period::from_secs(1),
            max: Period::from_secs(30),
            deadline: Period::from_secs(2 * 60),
        }
    }
}

/// How the waits between tries grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyBackoff {
    /// They don't.
    Constant,
    /// Each is twice the last.
    #[default]
    Exponential,
    /// Each is the sum of the two before it.
    Fibonacci,
}

impl std::str::FromStr for KeyBackoff {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "constant" => Ok(Self::Constant),
            "exponential" => Ok(Self::Exponential),
            "fibonacci" => Ok(Self::Fibonacci),
            _ => Err("is not one of constant, exponential, fibonacci"),
        }
    }
}

/// How much of a remote repository's history comes into the work tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// The commit alone.
    #[default]
    Shallow,
    /// All of it, with every branch and tag.
    Full,
}

impl History {
    /// Whether it is [`History::Shallow`], which a specification needn't say.
    pub fn is_shallow(&self) -> bool {
        *self == Self::Shallow
    }
}
