//! Pulling from a real registry on loopback, filled by skopeo.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use skep_runtime::{Error, Keyring, Reference};

use crate::support::{Place, available, busybox_layout};

/// Ends the registry also when the test panics.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("registry: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_pulled_verified_and_removed() {
    let tools = ["docker-registry", "skopeo"].iter().all(|t| skep_runtime::daemon::find_program(t).is_some());
    if !tools {
        assert!(std::env::var_os("SKEP_TEST_REQUIRE_ALL").is_none(), "needs docker-registry and skopeo");
        eprintln!("SKIPPED: needs docker-registry and skopeo");
        return;
    }
    if !available() {
        return;
    }
    Place::new()
        .run(|agent| async move {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = agent.dir.join("registry.yml");
            let storage = agent.dir.join("registry");
            std::fs::write(
                &config,
                format!(
                    "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
                    storage.display()
                ),
            )
            .unwrap();
            let _registry = Guard(
                Command::new("docker-registry")
                    .arg("serve")
                    .arg(&config)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap(),
            );
            let layout = agent.dir.join("layout");
            busybox_layout(&layout);
            let name = format!("127.0.0.1:{port}/team/busybox:v1");
            for round in 0.. {
                let output = Command::new("skopeo")
                    .args(["copy", "--quiet", "--dest-tls-verify=false", "--insecure-policy"])
                    .arg(format!("oci:{}", layout.display()))
                    .arg(format!("docker://{name}"))
                    .output()
                    .unwrap();
                if output.status.success() {
                    break;
                }
                assert!(round < 20, "{}", String::from_utf8_lossy(&output.stderr));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let reference = Reference::parse(&name).unwrap();
            let (runtime, keyring) = (&agent.runtime, Keyring::default());
            assert!(runtime.image(&reference).await.unwrap().is_none());
            let image = runtime.pull(&reference, &keyring).await.unwrap();
            assert_eq!(image.config.cmd, ["sh"]);
            assert_eq!(runtime.image(&reference).await.unwrap().unwrap(), image);
            assert_eq!(runtime.pull(&reference, &keyring).await.unwrap().digest, image.digest);
            let by_digest = Reference::parse(&image.repo_digest()).unwrap();
            assert_eq!(runtime.pull(&by_digest, &keyring).await.unwrap().id, image.id);
            let absent = Reference::parse(&format!("127.0.0.1:{port}/team/absent:v1")).unwrap();
            assert!(matches!(runtime.pull(&absent, &keyring).await, Err(Error::ImageNotFound(_))));
            let request = agent.request(&image, "pulled", "exit 0");
            runtime.create_container(&request).await.unwrap();
            runtime.start_container(&request.id).await.unwrap();
            for image in runtime.images().await.unwrap() {
                runtime.remove_image(&image.name).await.unwrap();
            }
            assert!(runtime.images().await.unwrap().is_empty());
        })
        .await;
}
