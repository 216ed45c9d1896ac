#!/bin/bash
# Starts PostgreSQL with two databases, each with a role of its own; makes them the first time.
# Runs as the user who owns $PGDATA. The superuser has no password and is let in through the local
# socket only, so that nobody reaches it over the network.
#
#   PGDATA                where the databases are
#   ORCHESTRATOR_SECRETS  folder with ledger_passfile and mlflow_passfile
#   LISTEN                addresses to listen on; all by default
#   PGSOCKETS             folder of the socket; /tmp by default
set -euo pipefail
umask 077
secrets="${ORCHESTRATOR_SECRETS:-/run/secrets}"
sockets="${PGSOCKETS:-/tmp}"
bin="$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1)"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # Made beside its place and moved there whole: a start that was cut off leaves nothing half done.
    new="$PGDATA.new"
    rm -rf "$new"
    "$bin/initdb" -D "$new" -U postgres -A peer --encoding UTF8 --locale C.UTF-8 >/dev/null
    cat >"$new/pg_hba.conf" <<HBA
local all    postgres     peer map=owner
host  ledger ledger   all scram-sha-256
host  mlflow mlflow   all scram-sha-256
HBA
    echo "owner $(id -un) postgres" >"$new/pg_ident.conf"
    "$bin/pg_ctl" -D "$new" -w -s -o "-c listen_addresses= -c log_min_error_statement=panic -k $sockets" start
    for name in ledger mlflow; do
        # The password travels on stdin: process arguments can be read by every user.
        {
            printf '\\set password %s\n' "$(cut -d: -f5 "$secrets/${name}_passfile")"
            echo "CREATE ROLE $name LOGIN PASSWORD :'password';"
            echo "CREATE DATABASE $name OWNER $name;"
            echo "REVOKE ALL ON DATABASE $name FROM PUBLIC;"
        } | "$bin/psql" -h "$sockets" -U postgres -d postgres -q -v ON_ERROR_STOP=1
    done
    "$bin/pg_ctl" -D "$new" -w -s -m fast stop
    mv "$new" "$PGDATA"
fi
exec "$bin/postgres" -D "$PGDATA" -c "listen_addresses=${LISTEN:-*}" -k "$sockets" \
    -c password_encryption=scram-sha-256
