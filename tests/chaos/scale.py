"""Changes the number of replicas of a Serve deployment: `python scale.py pump 3`.

Serve offers this by its dashboard, which the stack does not run, and to applications that give up
autoscaling. So it deploys again what is deployed, with the same code version and another number:
Serve then adds or ends replicas and touches no other. Uses Serve's own controller calls (Ray 2.60).
"""

from __future__ import annotations

import sys

import ray
from ray.serve._private.client import ServeControllerClient
from ray.serve.context import _get_global_client
from ray.serve.generated.serve_pb2 import ApplicationArgs, DeploymentArgs


def scale(deployment: str, replicas: int) -> int:
    """Sets the number; returns the one before. Does not wait for replicas to come or go."""
    client = _get_global_client()
    if not isinstance(client, ServeControllerClient):
        raise SystemExit("Serve does not run")
    infos = ray.get(client._controller.list_deployments_internal.remote())
    (application,) = (id_.app_name for id_ in infos if id_.name == deployment)
    before = -1
    arguments = []
    for id_, (info, route) in infos.items():
        if id_.app_name != application:
            continue
        config = info.deployment_config
        config.version = info.version
        if id_.name == deployment:
            before = config.num_replicas
            config.num_replicas = replicas
        args = DeploymentArgs(
            deployment_name=id_.name,
            deployment_config=config.to_proto_bytes(),
            replica_config=info.replica_config.to_proto_bytes(),
            deployer_job_id=info.deployer_job_id,
            ingress=info.ingress,
        )
        if route:
            args.route_prefix = route
        arguments.append(args.SerializeToString())
    ray.get(
        client._controller.deploy_applications.remote(
            {application: arguments}, {application: ApplicationArgs().SerializeToString()}
        )
    )
    return before


def main() -> None:
    """Joins the Ray that RAY_ADDRESS names, changes the number, and leaves."""
    ray.init(namespace="serve", log_to_driver=False, logging_level="error")
    before = scale(sys.argv[1], int(sys.argv[2]))
    sys.stdout.write(f"{before}\n")


if __name__ == "__main__":
    main()
