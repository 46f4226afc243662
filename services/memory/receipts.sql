-- name: add
insert into forget_receipt (tenant_id, id, subject_id, content_sha256, requested_by, deleted_at)
select $1, id, subject_id, content_sha256, $5, $6 from unnest($2::text[], $3::text[], $4::bytea[])
  as given (id, subject_id, content_sha256);

-- name: find
select id, subject_id, content_sha256, requested_by, deleted_at from forget_receipt where tenant_id = $1 and id = $2;

-- name: every
select id, subject_id, content_sha256, requested_by, deleted_at from forget_receipt
where tenant_id = $1 and ($2::text = '' or subject_id = $2) and ($3::text = '' or requested_by = $3)
  and ($4::timestamptz is null or (deleted_at, id) < ($4, $5))
order by deleted_at desc, id desc
limit $6;
