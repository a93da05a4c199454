#!/bin/sh
# The developer's five steps with a real Docker engine, in the checkout that is the present folder, which is changed:
#
#     sh workflow.sh docker compose        or        sh workflow.sh docker-compose
set -eu
[ $# -gt 0 ] || { echo "usage: $0 docker compose" >&2; exit 2; }

health() { python3 -c "
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen('http://127.0.0.1:${BACK_PORT:-8000}/health', timeout=5)
except urllib.error.HTTPError as error:
    answer = error
except OSError:
    sys.exit('000')
print(answer.status, answer.read().decode())
" 2>/dev/null || echo 000; }
wait_for() {
    tries=0
    until health | grep -q "^$1 "; do
        tries=$((tries + 1))
        [ $tries -lt 120 ] || { echo "no $1 from /health, but: $(health)" >&2; exit 1; }
        sleep 0.5
    done
}
user=$(id -u)
printf 'UID=%s\nGID=%s\n' "$user" "$(id -g)" >> .env
trap '"$@" logs --no-color back | tail -40 >&2; "$@" down --volumes --rmi local' EXIT

"$@" up -d --build
wait_for 200

cat > back/app/models/teams.py <<'MODEL'
"""A model that has just been written."""

from sqlalchemy.orm import Mapped

from app.models.base import Base, Identified


class Team(Identified, Base):
    """Some members of an organization."""

    __tablename__ = "teams"

    name: Mapped[str]
MODEL
echo "from app.models.teams import Team" >> back/app/models/__init__.py

"$@" exec -T back uv run alembic revision --autogenerate -m "Add teams table"
file=$(ls back/alembic/versions/*_add_teams_table.py)
[ "$(ls -n "$file" | awk '{ print $3 }')" = "$user" ] || { echo "$file is not the developer's own" >&2; exit 1; }
wait_for 503
"$@" exec -T back uv run alembic upgrade head
wait_for 200
"$@" exec -T back uv run alembic current | grep -q "(head)"

# A revision that fails stops the container, with the reason in its last line.
"$@" exec -T back uv run alembic revision -m "Fail on purpose"
file=$(ls back/alembic/versions/*_fail_on_purpose.py)
sed -i.bak 's/^    pass$/    op.execute("DROP TABLE nowhere")/' "$file" && rm "$file.bak"
"$@" restart back
container=$("$@" ps -q --all back 2>/dev/null || "$@" ps -q back)
[ "$(docker wait "$container")" = 1 ] || { echo "the container did not end with 1" >&2; exit 1; }
docker logs "$container" 2>&1 | tail -1 | grep 'FAILED: .*_fail_on_purpose.py, line .*"nowhere" does not exist'
echo "All five steps work."
