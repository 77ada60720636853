{
  description = "FlareDB: a distributed key-value store";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    rust-overlay = {
      url = "github:oxalica/rust-overlay";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = { self, nixpkgs, rust-overlay }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      shellFor = system:
        let
          pkgs = import nixpkgs {
            inherit system;
            overlays = [ rust-overlay.overlays.default ];
          };
        in
        pkgs.mkShell {
          packages = [
            # The compiler that rust-toolchain.toml pins, with its components.
            (pkgs.rust-bin.fromRustupToolchainFile ./rust-toolchain.toml)
            pkgs.protobuf
            pkgs.lz4
            pkgs.cargo-deny
            pkgs.shellcheck
            # Counts instructions for ./x guard.
            pkgs.valgrind
            # What ./x compare measures beside FlareDB.
            pkgs.etcd
            pkgs.redis
            # Tests that cut the network between nodes.
            pkgs.iproute2
            pkgs.nftables
          ];

          # The C++ compiler is the shell's own gcc; clang is here only as the library that bindgen loads. The hook tells
          # bindgen where the headers of this shell's C library lie.
          nativeBuildInputs = [ pkgs.rustPlatform.bindgenHook pkgs.gnumake ];
          LIBCLANG_PATH = "${pkgs.llvmPackages.libclang.lib}/lib";
        };
    in
    {
      devShells = nixpkgs.lib.genAttrs systems (system: { default = shellFor system; });
    };
}
