//! Has the crate compiled anew when a migration is added: the macro that embeds them can't tell Cargo itself.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
