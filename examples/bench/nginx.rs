//! nginx, Debian's: the peer for files, and the fast upstream.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context as _;

use crate::lab::{Folder, Lab, free_address};
use crate::probe;
use crate::program::{Program, until};

/// A running nginx with one worker per core.
#[derive(Debug)]
pub struct Nginx {
    /// Master and workers.
    pub program: Program,
    /// Where it listens.
    pub address: SocketAddr,
    folder: Folder,
}

impl Nginx {
    /// Starts one. `server` is what stands in its `server` block; `FOLDER` in it is a folder of its own, `http` stands beside the block.
    pub async fn start(lab: &Lab, http: &str, server: &str) -> anyhow::Result<Self> {
        Self::listen(lab, http, server, "").await
    }

    /// The same over TLS.
    pub async fn start_tls(lab: &Lab, server: &str) -> anyhow::Result<Self> {
        Self::listen(lab, "", server, " ssl").await
    }

    async fn listen(lab: &Lab, http: &str, server: &str, listen: &str) -> anyhow::Result<Self> {
        let nginx = lab.nginx.as_ref().context("no nginx")?;
        let folder = lab.folder("nginx")?;
        let address = free_address()?;
        // Workers of root's nginx would run as somebody who may not read the folder.
        let user = if rustix::process::getuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path FOLDER/{kind};"));
        let text = format!(
            "{user}
worker_processes auto;
daemon off;
pid FOLDER/pid;
error_log FOLDER/error.log;
events {{ worker_connections 8192; }}
http {{
  {}
  log_format bytes '$body_bytes_sent';
  access_log FOLDER/access.log;
  default_type application/octet-stream;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  {http}
  server {{
    listen {address}{listen} backlog=4096;
    {server}
  }}
}}
",
            temporary.join("\n  ")
        );
        let path = folder.path().to_str().context("a folder that is no text")?;
        let file = folder.join("nginx.conf");
        fs::write(&file, text.replace("FOLDER", path))?;
        let mut command = Command::new(nginx);
        command.args(["-e", "stderr", "-p", path, "-c"]).arg(&file);
        let mut program = Program::start("nginx", &mut command, &folder.join("log"))?;
        let listening = until("nginx listens", &mut program, async || match listen {
            // Any answer will do.
            "" => probe::get(address, "/").is_ok(),
            _ => std::net::TcpStream::connect(address).is_ok(),
        })
        .await;
        listening.with_context(|| fs::read_to_string(folder.join("log")).unwrap_or_default())?;
        Ok(Self {
            program,
            address,
            folder,
        })
    }

    /// Serves the objects of the lab as an image service does: by their version.
    pub async fn upstream(lab: &Lab) -> anyhow::Result<Self> {
        let server = format!(
            "access_log FOLDER/bytes bytes; location / {{ root {}; try_files /$arg_version =404; }}",
            lab.objects().display()
        );
        Self::start(lab, "", &server).await
    }

    /// Caches what an upstream has, in slices, each fetched once: the best that it can do for many clients at once.
    pub async fn cache(lab: &Lab, upstream: SocketAddr) -> anyhow::Result<Self> {
        let http = format!(
            "proxy_cache_path FOLDER/cache levels=1:2 keys_zone=artifacts:16m max_size=20g inactive=1h use_temp_path=off;
  upstream images {{ server {upstream}; keepalive 32; }}"
        );
        let server = "location / {
      proxy_pass http://images;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      slice 4m;
      proxy_set_header Range $slice_range;
      proxy_cache artifacts;
      proxy_cache_key $uri$is_args$args$slice_range;
      proxy_cache_valid 200 206 1h;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 300s;
      proxy_cache_lock_age 300s;
      proxy_buffer_size 64k;
      proxy_buffers 16 64k;
      proxy_busy_buffers_size 128k;
    }";
        Self::start(lab, &http, server).await
    }

    /// How many bytes of bodies an upstream sent, and forgets them.
    pub fn take_sent(&self) -> anyhow::Result<u64> {
        let file = self.folder.join("bytes");
        let text = fs::read_to_string(&file)?;
        // nginx appends, so what follows begins anew.
        fs::File::options().write(true).open(&file)?.set_len(0)?;
        text.lines().map(|line| Ok(line.trim().parse::<u64>()?)).sum()
    }
}
