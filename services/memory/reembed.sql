-- New vectors for what is kept. `:columns` and `:table` are those of queries.sql.

-- name: outdated
-- Two ranges of the index: what is done already is never read again.
select * from (
  (select * from memory where tenant_id = $1 and embedding_model > '' and embedding_model < $2
    order by embedding_model, place limit $3)
  union all
  (select * from memory where tenant_id = $1 and embedding_model <> '' and embedding_model > $2
    order by embedding_model, place limit $3)) as found
order by place limit $3;

-- name: count_outdated
select (select count(*) from memory where tenant_id = $1 and embedding_model > '' and embedding_model < $2)
  + (select count(*) from memory where tenant_id = $1 and embedding_model <> '' and embedding_model > $2);

-- name: unread
-- What has a vector of this model and none of its tokens. Only the keys of the tokens are looked at.
select * from memory
where tenant_id = $1 and embedding_model = $2 and embedding_set = ''
  and not exists (select from memory_tokens as known where known.tenant_id = $1 and known.place = memory.place)
order by place limit $3;

-- name: count_unread
select count(*) from memory
where tenant_id = $1 and embedding_model = $2 and embedding_set = ''
  and not exists (select from memory_tokens as known where known.tenant_id = $1 and known.place = memory.place);

-- name: take
-- Takes rows out, those that are still as they were read.
with wanted as (select id as wanted_id, updated as wanted_time
    from unnest($2::text[], $3::timestamptz[]) as given (id, updated)),
  wide as (delete from memory_episode using wanted where tenant_id = $1 and id = wanted_id
    and updated_at is not distinct from wanted_time returning :columns),
  narrow as (delete from memory_episode_384 using wanted where tenant_id = $1 and id = wanted_id
    and updated_at is not distinct from wanted_time returning :columns),
  other as (delete from memory_episode_any using wanted where tenant_id = $1 and id = wanted_id
    and updated_at is not distinct from wanted_time returning :columns)
select * from wide union all select * from narrow union all select * from other;

-- name: read
-- Vectors of tokens for rows that are still as they were read; locked, so that whoever deletes one deletes these too.
insert into memory_tokens (tenant_id, place, model, tokens)
select $1, known.place, known.embedding_model, given.tokens
from unnest($2::text[], $3::timestamptz[], $4::text[], $5::bytea[]) as given (id, updated, model, tokens)
join :table as known on known.tenant_id = $1 and known.id = given.id and known.embedding_model = given.model
  and known.updated_at is not distinct from given.updated
for key share of known
on conflict do nothing;
