-- Lists of submitted generations, the newest first.
create index submitted_generation_created_idx on submitted_generation (tenant_id, created_at desc, id desc);
