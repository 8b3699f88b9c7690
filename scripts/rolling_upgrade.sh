#!/usr/bin/env bash
# Replaces the services of the compose file one by one by those of the images built last, while queries flow; stops at
# the first that does not become healthy, and everything else then runs on as it was.
#
#   scripts/rolling_upgrade.sh          from the previous version to this one
#   scripts/rolling_upgrade.sh --back   from this one back to the previous one (its images built or pulled again first)
#
# Topics that a newer version reads are made first: its readers would wait for them, and no service makes them itself.
# Readers come before writers: what a newer version adds to a record is then read by services that know it.
set -euo pipefail
FORWARD=(gatekeeper trainer inference-green inference-blue router api)
BACK=(api router inference-blue inference-green trainer gatekeeper)
CHECKPOINT=/var/lib/twinloop/state/trainer-0/checkpoint.json

case "${1:-}" in
    "") services=("${FORWARD[@]}") ;;
    --back) services=("${BACK[@]}") ;;
    *) echo "usage: $0 [--back]" >&2; exit 2 ;;
esac

if [ "${1:-}" != --back ]; then
    echo "making topics that are missing"
    docker compose run --rm --no-deps init || {
        echo "init failed, nothing has been replaced: docker compose logs init" >&2
        exit 1
    }
fi
for service in "${services[@]}"; do
    echo "replacing $service"
    # SIGTERM, the grace period of the compose file, the new container; --wait returns when its health check passes.
    docker compose up --detach --no-deps --wait "$service" || {
        echo "$service did not become healthy: docker compose logs $service; go back with $0 --back" >&2
        if [ "$service" = trainer ] && [ "${1:-}" = --back ]; then
            # Not done unasked: what an older trainer can read it should go on from, feedback older than its topic included.
            echo "where its log says that the checkpoint cannot be used, move it away and run $0 --back again:" >&2
            echo "  docker compose run --rm --no-deps trainer mv $CHECKPOINT $CHECKPOINT.newer" >&2
        fi
        if [ "$service" = gatekeeper ] && [ "${1:-}" = --back ]; then
            echo "where its log says that a policy cannot be read: only the version that logged it can go on, see docs/operations.md" >&2
        fi
        exit 1
    }
done
