//! Lets binaries and tests of this package find the prebuilt libduckdb at run time:
//! where `DUCKDB_LIB_DIR` names its folder and DuckDB is not compiled in, the folder
//! becomes the binary's run path.
fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    let bundled = std::env::var_os("CARGO_FEATURE_BUNDLED_DUCKDB").is_some();
    if let (false, Ok(dir)) = (bundled, std::env::var("DUCKDB_LIB_DIR")) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
    }
}
