-- name: lock
select pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 0));

-- name: add_version
insert into prompt_version (tenant_id, name, digest, number, content, comment, author, created_at)
select $1, $2, $3, coalesce(max(number), 0) + 1, $4, $5, $6, $7 from prompt_version where tenant_id = $1 and name = $2
on conflict (tenant_id, name, digest) do nothing
returning number;

-- name: find_version
select v.*, array(
  select l.label from prompt_label l where (l.tenant_id, l.name, l.digest) = (v.tenant_id, v.name, v.digest) order by 1
) as labels
from prompt_version v
where v.name = $1 and starts_with(v.digest, $2) and ($3::int = 0 or v.number = $3)
order by case when $2 = '' then -v.number else v.number end
limit 1;

-- name: versions
select v.*, array(
  select l.label from prompt_label l where (l.tenant_id, l.name, l.digest) = (v.tenant_id, v.name, v.digest) order by 1
) as labels
from prompt_version v
where v.name = $1 and ($2::bigint = 0 or v.number < $2)
order by v.number desc
limit $3;

-- name: newest
select distinct on (v.name) v.*, array(
  select l.label from prompt_label l where (l.tenant_id, l.name, l.digest) = (v.tenant_id, v.name, v.digest) order by 1
) as labels
from prompt_version v
where v.name > $1
order by v.name, v.number desc
limit $2;

-- name: labels
select label, digest, weight from prompt_label where name = $1 order by label, place;

-- name: drop_label
delete from prompt_label where name = $1 and label = $2;

-- name: put_target
insert into prompt_label (tenant_id, name, label, place, digest, weight) values ($1, $2, $3, $4, $5, $6);

-- name: tie
insert into prompt_generation (tenant_id, generation_id, name, digest, label, created_at) values ($1, $2, $3, $4, $5, $6)
on conflict do nothing;

-- name: tied
select * from prompt_generation where generation_id = $1;

-- name: generations
select * from prompt_generation
where name = $1 and ($2::text = '' or digest = $2)
  and ($3::timestamptz is null or (created_at, generation_id) < ($3, $4))
order by created_at desc, generation_id desc
limit $5;
